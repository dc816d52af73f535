"""Arguments that accept only a few words: those of their enum, their dataclass, or the code that compares them."""

from __future__ import annotations

import ast
import importlib.util
import typing
from enum import Enum
from functools import cache
from pathlib import Path

from hf_sched.check.context import Subject
from hf_sched.schedules.validation import ArgumentError, suggest

# Declared as text. TRL compares them with words only when the first batch arrives, so the words are read from its code.
_COMPARED_IN_CODE = (
    *("loss_type", "importance_sampling_level", "scale_rewards", "multi_objective_aggregation"),
    *("vllm_importance_sampling_mode", "f_divergence_type"),
)
# Not among the declared choices, but accepted with a warning.
_RENAMED_WORDS = {"packing_strategy": ("bfd-requeue",)}


def choices(key: str, subject: Subject) -> tuple[str, ...]:
    """The words that an argument accepts; empty if it accepts any, or if they are unknown."""
    if key == "report_to":
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        return ("all", "none", *INTEGRATION_TO_CALLBACK)
    argument = subject.arguments[key]
    if argument.choices:
        return (*map(str, argument.choices), *_RENAMED_WORDS.get(key, ()))
    for option in (argument.hint, *typing.get_args(argument.hint)):
        if isinstance(option, type) and issubclass(option, Enum) and issubclass(option, str):
            return tuple(str(member.value) for member in option)
    return words_compared(subject.kind, key) if key in _COMPARED_IN_CODE else ()


def check_choice(key: str, allowed: tuple[str, ...], subject: Subject) -> None:
    """Find words that the argument does not accept, also in a list."""
    value = subject.given[key]
    for word in value if isinstance(value, list) else [value]:
        if key == "report_to" and not isinstance(word, str):
            subject.error(key, f"must be one of {', '.join(allowed)}, received nothing: write none")
        elif allowed and isinstance(word, str) and word not in allowed:
            subject.rejected(ArgumentError(key, f"one of {', '.join(allowed)}", word, suggest(word, allowed)))


@cache
def words_compared(kind: str, name: str) -> tuple[str, ...]:
    """The words that TRL's trainer of this kind compares an argument with."""
    found = importlib.util.find_spec(f"trl.trainer.{kind}_trainer")
    if found is None or found.origin is None:
        return ()
    words: dict[str, None] = {}
    for node in ast.walk(ast.parse(Path(found.origin).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], (ast.Eq, ast.In)):
            continue
        if name == getattr(node.left, "id", getattr(node.left, "attr", None)):
            constants = [item.value for item in ast.walk(node.comparators[0]) if isinstance(item, ast.Constant)]
            words.update(dict.fromkeys(word for word in constants if isinstance(word, str)))
    return tuple(words)
