"""Rewards tell right answers from wrong ones, whatever a model writes, and never end or hold up a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sched.finetune.rewards import OWN, check_reward_columns, load_rewards
from hf_sched.finetune.rewards.answers import accuracy, exact_answer, final_answer, final_number
from hf_sched.finetune.rewards.formats import FORMATS, answer_format, tag_count

RECIPES = Path(__file__).parents[4] / "recipes"


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def load(*named: Any) -> list[Any]:
    return list(load_rewards(list(named))[0])


def test_exact_answer_wants_the_whole_completion():
    assert [exact_answer(c, "12359") for c in ["12359", " 12359\n", "12359!", "", "1235"]] == [1, 1, 0, 0, 0]


ANSWERS = [
    ("48 / 2 = 24, 48 + 24 = 72.\n#### 72", True),
    (r"so it is \boxed{72}", True),
    (r"so it is \boxed{72} of \boxed{", False),
    ("<think>73?</think>\n<answer>72</answer>", True),
    ("The answer is 72.", True),
    ("#### $72.00", True),
    ("#### 73\nNo, it is\n#### 72\nfor 5 apples", True),
    (r"#### 73, no, \boxed{72}", True),
    ("#### 73", False),
    (r"72, so \boxed{73}", False),
    ("", False),
    ("####", False),
    ("no number at all", False),
]


@pytest.mark.parametrize(("completion", "right"), ANSWERS)
def test_a_final_answer_is_the_marked_one_or_the_last(completion: str, right: bool):
    assert final_number(completion, "72") == float(right)
    assert accuracy(completion, "72") == float(right)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{\frac{1}{2}} apples", r"\frac{1}{2}"),
        (r"\boxed{1} then #### 2", "2"),
        ("#### 7\n#### 8 apples\nor so", "8 apples"),
        ("<answer>x + 1</answer>.", "x + 1"),
        (r"\boxed{never closed", "never closed"),
        ("no mark", "no mark"),
    ],
)
def test_the_last_mark_holds_the_answer(text: str, answer: str):
    assert final_answer(text) == answer


def test_final_number_knows_thousands_and_signs():
    assert [final_number(*pair) for pair in [("#### 1,234", "1234"), ("#### -5", "-5"), ("#### 5", "-5")]] == [1, 1, 0]


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        ("#### 1/2", r"\frac{1}{2}", 1.0),
        (r"\boxed{8\text{ apples}}", "8", 1.0),
        ("I think that x is $1 + x$.", "x+1", 1.0),
        (r"#### \frac{1}{2}", "0.5", 1.0),
        (r"\boxed{x + 1}", "$1 + x$", 1.0),
        (r"\boxed{x - 1}", "$1 + x$", 0.0),
        ("#### 1,234", "1234", 1.0),
        ("#### 5", "", None),
    ],
)
def test_accuracy_compares_mathematics(completion: str, answer: str, verdict: float | None):
    assert accuracy(completion, answer) == verdict


@pytest.mark.parametrize(
    ("name", "completion", "wrong"),
    [
        ("boxed", r"so \boxed{3}", "so 3"),
        ("hashes", "so\n#### 3", "so 3"),
        ("answer_tag", "so <answer>3</answer>", "<answer>3"),
        ("think_answer", "<think>hm</think>\n<answer>3</answer>", "hm <answer>3</answer>"),
        (r"\d+", "33", "33!"),
    ],
)
def test_formats_are_told(name: str, completion: str, wrong: str):
    assert (answer_format(completion, format=name), answer_format(wrong, format=name)) == (1.0, 0.0)
    assert name in FORMATS or name == r"\d+"


def test_tags_count_where_they_stand_once():
    assert tag_count("<think>a</think><answer>b</answer>") == 1
    assert tag_count("<think>a<think></think>") == 0.25
    assert tag_count("[a]", tags=["[", "]"]) == 1


@given(st.text(), st.text())
@settings(deadline=None)
def test_no_completion_breaks_a_reward(completion: str, answer: str):
    for reward in load(*(name for name in OWN if name != "accuracy")):
        for form in (completion, chat(completion)):
            assert 0 <= reward(completions=[form], answer=[answer])[0] <= 1


@given(st.text(alphabet=r"0123456789\{}$^_()frac+-*/=,.# sqrtboxedxy", max_size=60))
@settings(deadline=None, max_examples=200)
def test_no_completion_breaks_accuracy(completion: str):
    (reward,) = load("accuracy")
    assert reward(completions=[completion, rf"\boxed{{{completion}}}"], answer=["72", "72"])[0] in (0.0, 1.0, None)


def test_rewards_are_found_in_trl_or_in_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(
        "def mine(completions, scale=1.0, **kwargs):\n    return [scale for _ in completions]\n"
        "class Made:\n    def __init__(self, value):\n        self.value = value\n"
        "    def __call__(self, completions, **kwargs):\n        return [self.value for _ in completions]\n"
        "async def later(completions, **kwargs):\n    return [0.0 for _ in completions]\n"
    )
    rewards, weights = load_rewards(
        [
            "think_format",
            {"name": "my_rewards.mine", "scale": 0.5, "weight": 2},
            '{"name": "my_rewards.Made", "value": 0.25, "as": "made"}',
            {"name": "repetition_penalty", "ngram_size": 2, "max_penalty": -1.0},
            "my_rewards.mine",
            "my_rewards.later",
            "org/reward-model",
        ]
    )
    names = [getattr(reward, "__name__", reward) for reward in rewards]
    assert names == ["think_format", "mine", "made", "repetition_penalty", "mine_2", "later", "org/reward-model"]
    assert weights == [1, 2, 1, 1, 1, 1, 1]
    thought, scaled, made, repeated, *_ = rewards
    assert thought(completions=[chat("<think>a</think>b"), chat("b")]) == [1.0, 0.0]
    assert scaled(completions=["a", "b"]) == [0.5, 0.5] and made(completions=["a"]) == [0.25]
    assert repeated(completions=["a", "b"], completion_ids=[[1, 2, 3], [5, 5, 5, 5]]) == [0.0, pytest.approx(-2 / 3)]


def test_weights_may_be_given_as_trl_takes_them():
    assert load_rewards(["final_number"], [0.5])[1] == [0.5]
    assert load_rewards(["final_number"])[1] is None
    with pytest.raises(ValueError, match="not both"):
        load_rewards([{"name": "final_number", "weight": 1}], [0.5])


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (None, "`reward_funcs` must name at least one reward"),
        ([], "`reward_funcs` must name at least one reward"),
        (["exact_anser"], r"received 'exact_anser' \(did you mean 'exact_answer'\?\)"),
        (["no_module.here"], "received 'no_module.here'"),
        ([3], "must hold names, or mappings with a `name`, received 3"),
        ([{"weight": 3}], "must hold names, or mappings with a `name`"),
        ([{"name": "tag_count", "tag": []}], "'tag_count' has no parameter `tag`; it takes tags"),
        ([{"name": "final_number", "style": 1}], "'final_number' has no parameter `style`; it takes none"),
        (
            [{"name": "repetition_penalty", "max_penalty": 1}],
            "'repetition_penalty' cannot be made .* should not be",
        ),
        ([{"name": "repetition_penalty", "ngram": 1}], "has no parameter `ngram`; it takes ngram_size, max_penalty"),
        ([{"name": "final_number", "weight": "high"}], "the `weight` of 'final_number' must be a number"),
        ([{"name": "org/model", "x": 1}], "the reward model 'org/model' takes no x"),
    ],
)
def test_what_does_not_fit_is_refused(named: Any, words: str):
    with pytest.raises(ValueError, match=words):
        load_rewards(named)


def test_a_missing_column_is_told_before_the_training():
    with pytest.raises(ValueError, match="'final_number' needs a column `answer` in the data, which have prompt, gold"):
        check_reward_columns(load("tag_count", "final_number"), ["prompt", "gold"])
    check_reward_columns(load("tag_count"), ["prompt"])


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of rewards that fail on some completions."""
    monkeypatch.chdir(tmp_path)
    name = f"strange_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "import re\n"
        "def fragile(completions, **kwargs):\n    return [1 / len(c) for c in completions]\n"
        "def slow(completions, **kwargs):\n    return [float(bool(re.match(r'(a+)+$', c))) for c in completions]\n"
        "def broken(completions, **kwargs):\n    return [c.no_such_thing for c in completions]\n"
        "def short(completions, **kwargs):\n    return [1.0]\n"
    )
    return name


def test_a_completion_that_breaks_a_reward_spoils_no_other(strange: str):
    (fragile,) = load(f"{strange}.fragile")
    with pytest.warns(UserWarning, match=r"the reward 'fragile' failed \(ZeroDivisionError: .*on the completion ''"):
        assert fragile(completions=["ab", "", "abcd"]) == [0.5, None, 0.25]


def test_a_completion_that_takes_too_long_is_given_up(strange: str):
    (slow,) = load({"name": f"{strange}.slow", "time_limit": 0.3})
    started = time.monotonic()
    with pytest.warns(UserWarning, match=r"the reward 'slow' took longer than 0\.3 s"):
        assert slow(completions=["aaa", "a" * 60 + "b"]) == [1.0, None]
    assert time.monotonic() - started < 5


def test_a_reward_that_fails_on_everything_is_the_fault(strange: str):
    broken, short = load(f"{strange}.broken", f"{strange}.short")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="failed on each of 2 completions: AttributeError"):
        broken(completions=["a", "b"])
    assert short(completions=["a", "b"]) == [1.0, 1.0]  # one at a time it is right


def test_only_what_is_named_is_imported():
    code = (
        "import sys\n"
        "from hf_sched.finetune.rewards import load_rewards\n"
        "load_rewards(['final_number'])\n"
        "print([name for name in ('math_verify', 'sympy', 'trl', 'torch', 'hf_sched.finetune.rewards.formats') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_gold_answers_of_gsm8k_are_right():
    folder = os.environ.get("HF_SCHED_GSM8K")
    if not folder:
        pytest.skip("set HF_SCHED_GSM8K to a folder with GSM8K's train.jsonl and test.jsonl")
    lines = (Path(folder) / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:300]]
    for row in rows:
        gold = row["answer"].rpartition("####")[2].strip()
        assert final_number(row["answer"], gold) == accuracy(row["answer"], gold) == 1.0
        wrong = re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), row["answer"])
        assert final_number(wrong, gold) == accuracy(wrong, gold) == 0.0
