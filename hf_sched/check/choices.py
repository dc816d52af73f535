"""Arguments that accept only a few words: those of their enum, their dataclass, or the code that compares them."""

from __future__ import annotations

import re
import typing
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hf_sched.check.subject import Subject

# Declared as text. TRL compares them with words only when the first batch arrives, so the words are read from its code.
_COMPARED_IN_CODE = (
    *("loss_type", "importance_sampling_level", "scale_rewards", "multi_objective_aggregation"),
    *("vllm_importance_sampling_mode", "f_divergence_type"),
)


def choices(key: str, subject: Subject) -> tuple[str, ...]:
    """The words that an argument accepts; empty if it accepts any, or if they are unknown."""
    if key == "report_to":
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        return ("all", "none", *INTEGRATION_TO_CALLBACK)
    argument = subject.config.fields[key]
    if argument.choices:
        return tuple(map(str, argument.choices))
    for option in (argument.hint, *typing.get_args(argument.hint)):
        if isinstance(option, type) and issubclass(option, Enum) and issubclass(option, str):
            return tuple(str(member.value) for member in option)
    return _words_compared(subject.config.kind, key) if key in _COMPARED_IN_CODE else ()


@cache
def _words_compared(kind: str, name: str) -> tuple[str, ...]:
    """The words that TRL's trainer of this kind compares an argument with."""
    found = find_spec(f"trl.trainer.{kind}_trainer")
    source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
    compared = re.findall(rf'\b{name} (?:==|in) (".*?"|[\[(].*?[\])])', source, re.DOTALL)
    return tuple(dict.fromkeys(re.findall(r'"(\w+)"', " ".join(compared))))
