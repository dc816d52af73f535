r"""Rewards for the format of a completion, whether its answer is right or wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

FORMATS = {
    "boxed": r".*\\boxed\{.+\}.*",
    "hashes": r".*####\s*\S+\s*",
    "answer_tag": r".*<answer>.+</answer>\s*",
    "think_answer": r"\s*<think>.+?</think>\s*<answer>.+</answer>\s*",
}


def answer_format(completion: str, *, format: str = "boxed") -> float:
    r"""Return 1.0 if the whole completion matches the format, one of `FORMATS` or a regular expression, else 0.0."""
    return float(re.fullmatch(FORMATS.get(format, format), completion, flags=re.DOTALL) is not None)


def tag_count(completion: str, *, tags: Sequence[str] = ("<think>", "</think>", "<answer>", "</answer>")) -> float:
    """Return the fraction of `tags` that occur exactly once, so that part of the format earns part of the reward."""
    return sum(completion.count(tag) == 1 for tag in tags) / len(tags)
