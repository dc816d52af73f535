r"""Rewards that check an answer: 1.0 to a right completion, 0.0 to any other; the data have a column `answer`."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from itertools import accumulate
from typing import Any

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MARKS = ("####", "\\boxed{", "<answer>")


def exact_answer(completion: str, answer: str) -> float:
    """1.0 where the whole completion is the answer, but for surrounding blanks."""
    return float(completion.strip() == answer.strip())


def final_number(completion: str, answer: str) -> float:
    r"""1.0 where the final number is right: the last that is marked (`####`, `\boxed{}`, `<answer>`), else the last."""
    ours, theirs = _number(final_answer(completion)), _number(final_answer(answer))
    return float(ours is not None and ours == theirs)


def accuracy(completion: str, answer: str) -> float | None:
    r"""1.0 where the final answer is mathematically the same (math-verify): 0.5 for 1/2, `x + 1` for `1 + x`.

    What is marked last (`####`, `\boxed{}`, `<answer>`) is the final answer; without a mark math-verify looks for it.
    None, no verdict, where the right answer itself cannot be read.
    """
    from math_verify import verify

    right = _mathematics(answer, True)
    if not right:
        return None
    return float(verify(list(right), list(_mathematics(completion, False)), timeout_seconds=None))


def final_answer(text: str) -> str:
    r"""What is marked last as the answer, by `####`, `\boxed{}` or `<answer>`; all of the text without a mark."""
    mark = max(_MARKS, key=text.rfind)
    start = text.rfind(mark)
    behind = text[start + len(mark) :]
    if start < 0:
        return text
    if mark == "####":
        return behind.strip().partition("\n")[0]
    if mark == "<answer>":
        return behind.partition("</answer>")[0]
    depths = accumulate((character == "{") - (character == "}") for character in behind)
    return behind[: next((place for place, depth in enumerate(depths) if depth < 0), len(behind))]


@lru_cache(maxsize=4096)
def _mathematics(text: str, is_answer: bool) -> tuple[Any, ...]:
    """What math-verify reads; `is_answer` says that the text is an answer and nothing else."""
    from math_verify import parse

    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)  # it says at each call that it keeps no time: the guard does
    answer = final_answer(text)
    is_answer = is_answer or answer != text
    # An answer that stands alone may be bare LaTeX, which is only recognised within dollars.
    attempts = [f"${answer}$", answer] if is_answer and "$" not in answer else [answer]
    return next((tuple(read) for attempt in attempts if (read := parse(attempt, parsing_timeout=None))), ())


def _number(text: str) -> float | None:
    numbers = NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None
