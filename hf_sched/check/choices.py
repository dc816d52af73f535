"""Words of which an argument takes only a few: from its enum, its dataclass, or the code that compares it with them."""

from __future__ import annotations

import ast
import importlib.util
import typing
from collections.abc import Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.schedules.validation import did_you_mean

# Declared as text, and refused only when the first batch is there: what they may be is read from TRL's trainers.
_COMPARED_IN_CODE = (
    "loss_type",
    "importance_sampling_level",
    "scale_rewards",
    "multi_objective_aggregation",
    "vllm_importance_sampling_mode",
    "f_divergence_type",
)

# Not among the choices that are declared, but taken with a warning.
_RENAMED_WORDS = {"packing_strategy": ("bfd-requeue",)}


def choices(key: str, subject: Subject) -> tuple[str, ...]:
    """The words that an argument takes; empty where it takes any, or nobody says."""
    if key == "report_to":
        return ("all", "none", *_trackers())
    argument = subject.arguments[key]
    if argument.choices:
        return (*map(str, argument.choices), *_RENAMED_WORDS.get(key, ()))
    for option in (argument.hint, *typing.get_args(argument.hint)):
        if isinstance(option, type) and issubclass(option, Enum) and issubclass(option, str):
            return tuple(str(member.value) for member in option)
    if key in _COMPARED_IN_CODE:
        return words_compared(subject.kind, key)
    return ()


def check_choice(key: str, allowed: tuple[str, ...], subject: Subject) -> Iterator[Finding]:
    """Words that are none of those allowed; a finding for each item of a list."""
    value = subject.given[key]
    for word in value if isinstance(value, list) else [value]:
        if key == "report_to" and (word is None or not isinstance(word, str)):
            yield subject.error(key, f"must be one of {', '.join(allowed)}, received nothing: write none")
        elif allowed and isinstance(word, str) and word not in allowed:
            hint = did_you_mean(word, allowed).removesuffix(".")
            yield subject.error(key, f"must be one of {', '.join(allowed)}, received {word!r}{hint}")


@cache
def words_compared(kind: str, name: str) -> tuple[str, ...]:
    """The words that a trainer of TRL compares an argument with; empty where there are none."""
    found = importlib.util.find_spec("trl.trainer")
    folder = Path(next(iter(found.submodule_search_locations or ()))) if found else None
    path = folder / f"{kind}_trainer.py" if folder else None
    if path is None or not path.is_file():
        return ()
    words: dict[str, None] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare) and _name(node.left) == name and isinstance(node.ops[0], (ast.Eq, ast.In)):
            words.update(dict.fromkeys(_constants(node.comparators[0])))
    return tuple(words)


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def _constants(node: ast.AST) -> list[str]:
    items: list[Any] = node.elts if isinstance(node, (ast.List, ast.Tuple, ast.Set)) else [node]
    return [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]


@cache
def _trackers() -> tuple[str, ...]:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return tuple(INTEGRATION_TO_CALLBACK)
