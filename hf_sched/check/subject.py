"""What is checked: a configuration, the arguments its trainer has, and what is known of the run."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import typing
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hf_sched.check.finding import Finding, Severity
from hf_sched.check.positions import Positions
from hf_sched.plan.training_config import KINDS, SCRIPT_ARGUMENTS, TRAINING_ARGUMENTS, TrainingConfig

# Scripts of TRL that take more than `ScriptArguments`.
_OWN_SCRIPTS = {
    "grpo": ("trl.scripts.grpo", "GRPOScriptArguments"),
    "rloo": ("trl.scripts.rloo", "RLOOScriptArguments"),
}


def as_number(value: Any) -> float | None:
    """A number, or text that is one; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument as its dataclass declares it."""

    hint: Any
    default: Any
    """None also where it is made by a function."""
    choices: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Subject:
    """A configuration to check."""

    config: TrainingConfig
    dataset_size: int | None = None
    world_size: int | None = None
    allowed: frozenset[str] = frozenset()
    """Keys that a script of the user's own takes."""
    not_judged: list[str] = dataclasses.field(default_factory=list)
    """What could not be judged, and what to give so that it can."""

    @property
    def kind(self) -> str:
        """See `TrainingConfig`."""
        return self.config.kind

    @property
    def given(self) -> Mapping[str, Any]:
        """What was written."""
        return self.config.given

    @property
    def arguments(self) -> dict[str, Argument]:
        """All arguments of its trainer and script."""
        return arguments_of(self.kind)

    @property
    def converts_text(self) -> bool:
        """Whether the script's parser makes numbers of text: TRL's does, that of transformers does not."""
        return self.kind != "trainer"

    @cached_property
    def positions(self) -> Positions:
        """Where the keys stand, if it was read from a file."""
        path = Path(self.config.source)
        return Positions.of(path.read_text(encoding="utf-8")) if path.is_file() else Positions()

    def value(self, name: str) -> Any:
        """What was written, else the default; None where its trainer has no such argument."""
        if name in self.given:
            return self.given[name]
        return self.arguments[name].default if name in self.arguments else None

    def number(self, name: str) -> float | None:
        """A number that was written, text made a number of, or the default; None for anything else."""
        return as_number(self.value(name))

    def whole(self, name: str) -> int | None:
        """As `number`, where it is a whole one."""
        number = self.number(name)
        return int(number) if number is not None and number.is_integer() else None

    def flag(self, name: str) -> bool:
        """Whether something is on, also where it was written as text that a parser reads so."""
        value = self.value(name)
        return value is True or (isinstance(value, str) and value.lower() in ("true", "t", "yes", "y", "on", "1"))

    def text(self, name: str) -> str:
        """A word that was written, or the default; of an enum its value."""
        value = self.value(name)
        return str(getattr(value, "value", value))

    def find(self, severity: Severity, key: str, message: str) -> Finding:
        """A finding about a key, `lr_scheduler_kwargs.min_lr` for one within another."""
        value: Any = self.given
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return Finding(key, value, self.positions.lines.get(key), severity, message)

    def error(self, key: str, message: str) -> Finding:
        """See `find`."""
        return self.find("error", key, message)

    def warning(self, key: str, message: str) -> Finding:
        """See `find`."""
        return self.find("warning", key, message)


@cache
def arguments_of(kind: str) -> dict[str, Argument]:
    """The arguments of a kind of trainer, and of TRL's script for it; imports transformers, and trl."""
    found: dict[str, Argument] = {}
    for cls in classes_of(kind):
        hints = typing.get_type_hints(cls)  # not `field.type`: HfArgumentParser overwrites it
        for field in dataclasses.fields(cls):
            if field.init:
                default = None if field.default is dataclasses.MISSING else field.default
                found[field.name] = Argument(hints[field.name], default, tuple(field.metadata.get("choices") or ()))
    return found


def classes_of(kind: str) -> list[type]:
    """The dataclasses whose arguments a configuration of a kind may have: the trainer's first."""
    module, name = TRAINING_ARGUMENTS[kind]
    if not _is_there(module):
        raise ValueError(f"a configuration for {kind} is checked with {module}, which is not installed: install it")
    classes = [getattr(importlib.import_module(module), name)]
    if module == "trl":
        for other in SCRIPT_ARGUMENTS:
            own = _OWN_SCRIPTS.get(kind) if other == "ScriptArguments" else None
            place, other = own or ("trl", other)
            classes.append(getattr(importlib.import_module(place), other))
    return classes


def kinds_with(name: str) -> list[str]:
    """The kinds of trainer that have an argument."""
    return [kind for kind in KINDS if _is_there(TRAINING_ARGUMENTS[kind][0]) and name in arguments_of(kind)]


@cache
def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
