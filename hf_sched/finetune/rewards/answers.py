r"""Rewards that compare a completion with the right answer, which the data hold in the column `answer`."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from itertools import accumulate
from typing import Any

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARKS = ("####", "\\boxed{", "<answer>")


def exact_answer(completion: str, answer: str) -> float:
    """Return 1.0 if the completion is the answer, apart from surrounding white space, else 0.0.

    >>> exact_answer(" 72\\n", "72")
    1.0
    """
    return float(completion.strip() == answer.strip())


def final_number(completion: str, answer: str) -> float:
    r"""Return 1.0 if the final number is right, else 0.0.

    The final number is the last one marked by `####`, `\boxed{}` or `<answer>`; without a mark, the last in the text.

    >>> final_number("48 + 24 = 72. #### 72", "72")
    1.0
    """
    ours, theirs = _number(final_answer(completion)), _number(final_answer(answer))
    return float(ours is not None and ours == theirs)


def accuracy(completion: str, answer: str) -> float | None:
    r"""Return 1.0 if math-verify finds the final answer equal to the right one, else 0.0.

    The final answer is the last one marked by `####`, `\boxed{}` or `<answer>`; without a mark, math-verify searches
    the text. Returns None (no reward) if the right answer itself does not parse.

    >>> accuracy(r"\boxed{\frac{1}{2}}", "0.5")
    1.0
    """
    from math_verify import verify

    right = _parsed(answer, True)
    if not right:
        return None
    return float(verify(list(right), list(_parsed(completion, False)), timeout_seconds=None))


def final_answer(text: str) -> str:
    r"""Return the last answer marked by `####`, `\boxed{}` or `<answer>`; without a mark, the whole text."""
    mark = max(_MARKS, key=text.rfind)
    start = text.rfind(mark)
    if start < 0:
        return text
    rest = text[start + len(mark) :]
    if mark == "####":
        return rest.strip().partition("\n")[0]
    if mark == "<answer>":
        return rest.partition("</answer>")[0]
    depths = accumulate((character == "{") - (character == "}") for character in rest)
    return rest[: next((place for place, depth in enumerate(depths) if depth < 0), len(rest))]


@lru_cache(maxsize=4096)
def _parsed(text: str, is_answer: bool) -> tuple[Any, ...]:
    """Parse a completion, or (`is_answer`) a text that is an answer and nothing else."""
    from math_verify import parse

    for name in ("math_verify.parser", "math_verify.grader"):
        # It warns in each call that it has no time limit; `SafeReward` has one.
        logging.getLogger(name).setLevel(logging.ERROR)
    answer = final_answer(text)
    is_answer = is_answer or answer != text
    # An answer alone may be bare LaTeX, which math-verify only recognizes between dollars.
    attempts = [f"${answer}$", answer] if is_answer and "$" not in answer else [answer]
    return next((tuple(found) for attempt in attempts if (found := parse(attempt, parsing_timeout=None))), ())


def _number(text: str) -> float | None:
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None
