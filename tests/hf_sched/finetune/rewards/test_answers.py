r"""Final answers are found however they are written, and only right ones earn a reward."""

from __future__ import annotations

import pytest

from hf_sched.finetune.rewards.answers import accuracy, exact_answer, final_number

# Completion, right answer, `accuracy` and `final_number`; None is no verdict.
NUMBERS = [
    ("#### Conclusion\nShe earns $18.", "18", 1, 1),
    ("#### 18\n\n#### Explanation\nSee above.", "18", 1, 1),
    ("#### Step 2: multiply\n9*2=18\n\n**Answer: 18**", "18", 1, 1),
    ("#### 2. Compute the total\n9*2 = 18\nThe answer is 18.", "18", 1, 1),
    ("#### Step 1\n3+4=7\n#### Step 2\n7+11=18", "18", 1, 1),
    ("#### 18 eggs, not 20", "18", 1, 1),
    ("#### 18 eggs, not 20", "20", 0, 0),
    ("#### Answer: 18\nThanks for reading, 2024.", "18", 1, 1),
    ("##### Note\n18", "18", 1, 1),
    ("<answer>18</answer>\n#### Notes\nNone of the 5 eggs", "18", 1, 1),
    ("Write it in \\boxed{}. So the answer is 18", "18", 1, 1),
    ("The answer is 18. I checked it in 2 ways.", "18", 1, 1),
    ("my answer: see below\n5*3=15", "15", 1, 1),
    ("#### 73, no, \\boxed{72}", "72", 1, 1),
    ("so it is \\boxed{72} of \\boxed{", "72", 0, 0),
    ("\\boxed{72", "72", 1, 1),
    ("#### $72.00", "72", 1, 1),
    ("#### 18 or 20", "18", 0, 0),
    ("\\boxed{18, 20}", "18", 0, 0),
    ("1,2,3", "123", 0, 0),
    ("I do not know.", "18", 0, 0),
    ("", "18", 0, 0),
    ("Final Answer: **73**", "73", 1, 1),
    ("**Final Answer:**\n18", "18", 1, 1),
    ("the answer is \\boxed{2}. wait, actually \\boxed{3}", "3", 1, 1),
    ("the answer is \\boxed{2}. wait, actually \\boxed{3}", "2", 0, 0),
    ("Result 18\n####", "18", 1, 1),
    ("<answer>The answer is 18.</answer>", "18", 1, 1),
    ("\\boxed{\\text{The answer is } 460}", "460", 1, 1),
    # expressions, of which one number is not the answer
    ("10-3 is 7", "-3", 0, 0),
    ("10 - 3", "3", 0, 0),
    ("10 - 3", "7", 1, 0),
    ("so the share is 1/4", "4", 0, 0),
    ("so the share is 1/4", "0.25", 1, 1),
    ("\\boxed{\\frac{64}{400}}", "400", 0, 0),
    ("\\boxed{\\sqrt{16}}", "16", 0, 0),
    ("\\boxed{\\sqrt{16}}", "4", 1, 0),
    ("\\boxed{2\\pi}", "2", 0, 0),
    ("\\boxed{2^{3}}", "2", 0, 0),
    ("\\boxed{2^{3}}", "8", 1, 0),
    ("\\boxed{x + 3}", "3", 0, 0),
    ("\\boxed{x \\geq 3}", "3", 0, 0),
    ("\\boxed{\\sqrt{2}+3}", "3", 0, 0),
    ("\\boxed{3 \\cdot 4}", "4", 0, 0),
    ("\\boxed{3 \\cdot 4}", "12", 1, 0),
    ("\\boxed{5x}", "5", 0, 0),
    ("at 12:30", "30", 0, 0),
    # ways to write a number
    ("#### 1,234", "1234", 1, 1),
    ("#### 1{,}234", "1234", 1, 1),
    ("1,00,000", "100000", 1, 1),
    ("1.5e3", "1500", 1, 1),
    ("1500", "1.5e3", 1, 1),
    ("2E-3", "0.002", 1, 1),
    ("It is 2e-7.", "1e-7", 0, 0),
    ("6.02 x 10^23", "6.02e23", 1, 1),
    ("It is 1.5 \\times 10^{3}.", "1500", 1, 1),
    ("It is 1.5 \N{MULTIPLICATION SIGN} 10³.", "1500", 1, 1),
    ("10^6", "1000000", 1, 1),
    ("\N{MINUS SIGN}5", "-5", 1, 1),
    ("-$5", "-5", 1, 1),
    ("+5", "5", 1, 1),
    (".5", "5", 0, 0),
    (".5", "0.5", 1, 1),
    ("18%", "18", 1, 1),
    ("Rs.500", "500", 1, 1),
    ("18!", "18", 1, 1),
    ("12345678901234567890123456789012", "12345678901234567890123456789013", 0, 0),
    ("9" * 5000, "9" * 5000, 1, 1),
    # the right answer may come with its solution
    ("18", "2*9 = <<2*9=18>>18\n#### 18", 1, 1),
    ("18", "2*9 = 18\n#### 18\nThe answer is: 18", 1, 1),
    ("18", "so \\boxed{18}", 1, 1),
]
REASONING = [
    ("<think>maybe \\boxed{3}</think>\nThe answer is 18", "18", 1, 1),
    ("maybe \\boxed{3}</think>\nThe answer is 18", "18", 1, 1),
    ("<think>\\boxed{18} or", "18", 0, 0),
    ("<|begin_of_thought|>\\boxed{3}<|end_of_thought|>18", "18", 1, 1),
    ("<reasoning>3</reasoning><answer>18</answer>", "18", 1, 1),
    ("<think>\n</think>\n\nParis", "Paris", 1, None),
]
FORMULAS = [
    ("\\boxed{\\frac{64}{400}}", "\\frac{63}{400}", 0, None),
    ("\\boxed{\\frac{126}{800}}", "\\frac{63}{400}", 1, None),
    ("so the share is 1/4", "3/4", 0, None),
    ("0.333333", "1/3", 1, None),
    ("#### \\frac{1}{2}", "0.5", 1, 1),
    ("\\boxed{8\\text{ apples}}", "8", 1, 1),
    ("I think that x is $1 + x$.", "x+1", 1, None),
    ("\\boxed{x - 1}", "$1 + x$", 0, None),
    ("\\boxed{\\frac{1}{2^{98}}}", "\\frac{1}{2^{99}}", 0, None),
    ("$1 + \\frac{1}{\\mathrm{e}}$", "$1 - \\frac{1}{\\mathrm{e}}$", 0, None),
    ("**Answer:** 10 - 2√5", "10 - 2\\sqrt{5}", 1, None),
    ("1331, 1728", "1728 and 1331", 1, None),
    ("1728", "1728 and 1331", 0, None),
    ("2021", "\\pm 2021", 0, None),
    ("x+1", "1+x", 1, None),
    ("The answer is 1+x.", "x+1", 1, None),
    ("x-1", "x+1", 0, None),
    ("The unknown is $x$", "x", 1, None),
    ("12", "x", 0, None),
    ("5", "x=5", 1, None),
    ("\\boxed{\\left\\{1,2\\right\\}}", "\\{2,1\\}", 1, None),
    ("\\boxed{(1,3)}", "(1,2)", 0, None),
]
TEXT = [
    ("Paris", "Paris", 1, None),
    ("The answer is Paris.", "Paris", 1, None),
    ("#### Paris", "Paris", 1, None),
    ("<answer>The answer is Paris.</answer>", "Paris", 1, None),
    ("12:00", "1:00", 0, None),
    ("\\boxed{\\text{Paris}}", "Paris", 1, None),
    ("**Paris**", "Paris", 1, None),
    ("London", "Paris", 0, None),
    ("#### saPri", "Paris", 0, None),  # as a product of letters, it would be equal
    ("C2O", "CO2", 0, None),
    ("Na", "NA", 0, None),
    ("NA", "NA", 1, None),
    ("None", "None", 1, None),
    ("int a;", "int a;", 1, None),
    ("", "*", 0, None),
    ("2024-02-04", "2024-01-05", 0, None),  # as a formula, both are 2018
    ("The answer is 2024-01-05.", "2024-01-05", 1, None),
    ("8", "8 apples", 1, None),
    ("She has 8 apples.", "8 apples", 1, None),
    ("8 pears", "8 apples", 0, None),
    ("4", "Either 3 or 4 eggs", 0, None),
    ("5", "", None, None),
]
OPTIONS = [
    ("Yes", "Yes", 1, None),
    ("Yes, because it is.", "yes", 1, None),
    ("I think so.\nYes", "Yes", 1, None),
    ("Yes, it is odd.\nNo", "Yes", 0, None),
    ("No, it is not.", "Yes", 0, None),
    ("not sure", "No", 0, None),
    ("The answer is false.", "False", 1, None),
    ("The answer is (A).", "A", 1, None),
    ("The answer is (B).", "A", 0, None),
    ("The answer is (b).", "B", 1, None),
    ("The answer is A or B.", "A", 0, None),
    ("The answer is A, since B and C are wrong.", "A", 1, None),
    ("A", "(A)", 1, None),
    ("A) Paris", "A", 1, None),
    ("A", "A) Paris", 1, None),
    ("B. London", "A", 0, None),
    ("\\boxed{\\text{(C)}}", "C", 1, None),
    ("The correct option is C because", "C", 1, None),
    ("So I choose (D).", "D", 1, None),
    ("A cat sat.", "A", 0, None),
    ("I do not know.", "A", 0, None),
]


@pytest.mark.parametrize(("completion", "answer", "score", "_"), [*NUMBERS, *REASONING, *FORMULAS, *TEXT, *OPTIONS])
def test_accuracy_finds_and_compares_the_final_answer(completion: str, answer: str, score: float, _: float | None):
    assert accuracy(completion, answer) == score


@pytest.mark.parametrize(("completion", "answer", "_", "score"), [*NUMBERS, *REASONING, *FORMULAS, *TEXT, *OPTIONS])
def test_final_number_has_a_verdict_only_where_the_right_answer_is_a_number(
    completion: str, answer: str, _: float, score: float | None
):
    assert final_number(completion, answer) == score


def test_exact_answer_ignores_reasoning_and_white_space_only():
    given = ["12359", " 12359\n", "<think>\n</think>\n12359", "12359!", "", "1235"]
    assert [exact_answer(completion, "12359") for completion in given] == [1, 1, 1, 0, 0, 0]
