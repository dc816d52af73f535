r"""Rewards for the form of a completion, right or wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What `answer_format` knows by name.
FORMATS = {
    "boxed": r".*\\boxed\{.+\}.*",
    "hashes": r".*####\s*\S+\s*",
    "answer_tag": r".*<answer>.+</answer>\s*",
    "think_answer": r"\s*<think>.+?</think>\s*<answer>.+</answer>\s*",
}


def answer_format(completion: str, *, format: str = "boxed") -> float:
    r"""1.0 where the completion has the form: boxed, hashes, answer_tag, think_answer, or a regular expression."""
    return float(re.fullmatch(FORMATS.get(format, format), completion, flags=re.DOTALL) is not None)


def tag_count(completion: str, *, tags: Sequence[str] = ("<think>", "</think>", "<answer>", "</answer>")) -> float:
    """The share of tags that stand in the completion exactly once, so that part of a form earns part of the reward."""
    return sum(completion.count(tag) == 1 for tag in tags) / len(tags)
