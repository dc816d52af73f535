r"""Rewards that compare a completion with the right answer, which the data hold in the column `answer`."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hf_sched.finetune.rewards.extraction import (
    AND,
    LETTER,
    anchored,
    clean,
    is_formula,
    last_number,
    letter_in,
    marked_answer,
    number_in,
    plain_number,
    with_expanded_powers,
    without_reasoning,
    word_in,
)


def exact_answer(completion: str, answer: str) -> float:
    """Return 1.0 if the completion is the answer, apart from reasoning and surrounding white space, else 0.0.

    >>> exact_answer(" 72\\n", "72")
    1.0
    """
    return float(answer.strip() in (completion.strip(), without_reasoning(completion).strip()))


def final_number(completion: str, answer: str) -> float | None:
    r"""Return 1.0 if the final number is right, else 0.0.

    The final number is the one in the last `\boxed{}` or `<answer>`, else after the last `####`, else after "the answer
    is", else the last in the text. Reasoning (`<think>`) is ignored. Returns None (no reward) if the right answer is
    not a plain number.

    >>> final_number("48 + 24 = 72. #### 72", "72")
    1.0
    """
    right = plain_number(_right_answer(answer))
    if right is None:
        return None
    completion = without_reasoning(completion)
    marked = marked_answer(completion, is_numeric=True)
    return float((last_number(completion) if marked is None else number_in(marked)) == right)


def accuracy(completion: str, answer: str) -> float | None:
    r"""Return 1.0 if the final answer equals the right one, else 0.0.

    The final answer is found as by `final_number`. Equal texts are right. Otherwise math-verify compares numbers and
    formulas; letters of a multiple choice, yes and no are found in a sentence; any other text must be equal. Returns
    None (no reward) if the right answer is empty.

    >>> accuracy(r"\boxed{\frac{1}{2}}", "0.5")
    1.0
    >>> accuracy("The answer is (A).", "A")
    1.0
    """
    right = _right_answer(answer)
    if not right:
        return None
    completion = without_reasoning(completion)
    marked = marked_answer(completion, is_numeric=any(character.isdigit() for character in right))
    answers, text = anchored(completion), completion
    if marked is not None:
        answers, text = [*anchored(marked), marked], ""
    if any(_is_same(said, right) for said in (*answers, text, *text.strip().splitlines()[-1:])):
        return 1.0
    if letter := LETTER.fullmatch(clean(right)):
        return float(letter_in(answers, text) == (letter[1] or letter[2]))
    for words in ("yes|no", "true|false"):
        if re.fullmatch(words, clean(right), re.IGNORECASE):
            return float(word_in(words, answers, text) == clean(right).lower())
    if plain_number(right) is None and not is_formula(right):
        return float(any(_is_same_quantity(said, right) for said in (*answers, text)))
    return float(_is_equal(answers, text, right))


def _right_answer(answer: str) -> str:
    answer = without_reasoning(answer).strip()
    marked = marked_answer(answer, is_numeric=False)
    return (marked if marked is not None else next(iter(anchored(answer)), answer)).strip()


def _is_same(said: str, right: str) -> bool:
    return said.strip() == right or clean(said) == clean(right) != ""


def _is_same_quantity(said: str, right: str) -> bool:
    """Whether `said` gives a quantity, such as `8 apples`, with or without its unit."""
    quantity = re.fullmatch(r"([-\d.,]*\d)\s*([^\d]*)", clean(right))
    if quantity is None or (number := plain_number(quantity[1])) is None:
        return False
    return plain_number(said) == number or (quantity[2] in said and number_in(said) == number)


def _is_equal(answers: Sequence[str], text: str, right: str) -> bool:
    if (number := plain_number(right)) is not None:
        numbers = [number_in(answer) for answer in answers]
        if said := [one for one in numbers if one is not None]:
            return said[0] == number
        if last_number(text) == number:
            return True
    from math_verify import verify

    expected = list(_parsed(right, True))
    for phrase, is_answer in [*((answer, True) for answer in answers), (text, is_formula(text))]:
        if found := _parsed(phrase, is_answer):
            return verify(expected, list(found), timeout_seconds=None) and _is_close(expected[0], found[0])
    return False


def _is_close(right: Any, said: Any) -> bool:
    """Whether two numbers are relatively close; math-verify rounds to 6 decimals, and so finds 1e-7 equal to 2e-7."""
    are_numbers = all(getattr(value, "is_number", False) for value in (right, said))
    return not are_numbers or bool(abs(right - said) <= abs(right) / 10**5)


@lru_cache(maxsize=4096)
def _parsed(text: str, is_answer: bool) -> tuple[Any, ...]:
    """Parse a completion, or (`is_answer`) a text that is an answer and nothing else."""
    from math_verify import parse

    for name in ("math_verify.parser", "math_verify.grader"):
        # It warns in each call that it has no time limit; `SafeReward` has one.
        logging.getLogger(name).setLevel(logging.ERROR)
    text = with_expanded_powers(AND.sub(",", text) if is_answer else text)
    # An answer alone may be bare LaTeX, which math-verify only recognizes between dollars.
    attempts = [f"${text.strip().rstrip('.')}$", text] if is_answer and "$" not in text else [text]
    return next((tuple(found) for attempt in attempts if (found := parse(attempt, parsing_timeout=None))), ())
