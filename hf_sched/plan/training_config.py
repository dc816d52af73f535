"""A training configuration: a YAML or JSON file of arguments, and the kind of trainer that it configures."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import typing
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from hf_sched.schedules.validation import ArgumentError, OneOf, Reader

# If a file fits several kinds equally well, the first of them is assumed.
KINDS = ("trainer", "sft", "dpo", "grpo", "kto", "reward", "rloo")
"""The kinds of trainer: that of transformers, and those of TRL."""
GENERATING = ("grpo", "rloo")
"""The kinds that train on completions of the model."""


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument as its dataclass declares it."""

    hint: Any
    default: Any
    choices: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The arguments of a run."""

    kind: str
    """One of `KINDS`."""
    given: Mapping[str, Any]
    """The keys and values of the file, unchanged."""
    source: str = "the configuration"
    """The name of the file, for messages."""
    kind_reason: str = ""
    """Why this kind is assumed ("has `max_length`"); empty if it was requested."""
    extra: tuple[type, ...] = ()
    """Dataclasses of the script's further arguments. They apply to all kinds but `trainer`."""

    @classmethod
    def read(cls, path: str | Path, kind: str | None = None, extra: tuple[type, ...] = ()) -> TrainingConfig:
        """Read a YAML or JSON file of arguments. `kind` is None to assume the kind that has most of its keys."""
        if kind is not None:
            OneOf(KINDS)("kind", kind)
        arguments = read_arguments(path)
        assumed, reason = (kind, "") if kind else _best_kind(arguments)
        return cls(assumed, arguments, str(path), reason, extra)

    @cached_property
    def fields(self) -> dict[str, Argument]:
        """All arguments of the trainer and its script, by name. Imports transformers and TRL."""
        own = arguments_of(self.kind)
        if self.kind == "trainer":
            return own
        extra = {name: argument for cls in self.extra for name, argument in _declared(cls).items()}
        return {**own, **{name: extra[name] for name in extra if name in own or not kinds_with(name)}}

    def value(self, name: str, reader: Reader | None = None) -> Any:
        """The value in the file, or the default, validated by the reader; a KeyError if there is no such argument."""
        value = self.given[name] if name in self.given else self.fields[name].default
        return value if reader is None else reader(name, value)

    def get(self, name: str, reader: Reader | None = None) -> Any:
        """Like `value`, but None if the value is None or the trainer has no such argument."""
        value = self.value(name) if name in self.given or name in self.fields else None
        return value if reader is None or value is None else reader(name, value)

    def mapping(self, name: str) -> dict[str, Any]:
        """An argument that is a mapping, a mapping in JSON, or a JSON file; empty if it is missing."""
        given = read = self.get(name) or {}
        with suppress(OSError, ValueError):
            if isinstance(given, str):
                read = json.loads(given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8"))
        if not isinstance(read, Mapping):
            raise ArgumentError(name, "a mapping, a mapping in JSON, or a JSON file", given)
        return {str(key): value for key, value in read.items()}


def read_arguments(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML or JSON file."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}: give a YAML or JSON file of training arguments")
    text = path.read_text(encoding="utf-8")
    try:
        given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: does not parse: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path}: must be a mapping of arguments (`learning_rate: 2.0e-5`), received {given!r}")
    return {str(key): value for key, value in given.items()}


def classes_of(kind: str) -> list[type]:
    """The dataclasses that a script of this kind parses, that of the trainer first."""
    if kind == "trainer":
        from transformers import TrainingArguments

        return [TrainingArguments]
    try:
        import trl
    except ModuleNotFoundError as error:
        rule = f"a configuration of kind {kind} needs trl, which is not installed"
        raise ValueError(f"{rule}: pip install trl") from error

    own = trl.RewardConfig if kind == "reward" else getattr(trl, f"{kind.upper()}Config")
    script = trl.ScriptArguments
    if kind in GENERATING:
        script = getattr(importlib.import_module(f"trl.scripts.{kind}"), f"{kind.upper()}ScriptArguments")
    return [own, script, trl.ModelConfig, trl.DatasetMixtureConfig]


@cache
def arguments_of(kind: str) -> dict[str, Argument]:
    """The arguments of a kind of trainer and of TRL's script for it, by name."""
    return {name: argument for cls in classes_of(kind) for name, argument in _declared(cls).items()}


def kinds_with(name: str) -> list[str]:
    """The kinds of trainer that have an argument of this name."""
    return [kind for kind in _installed_kinds() if name in arguments_of(kind)]


@cache
def _declared(cls: Any) -> dict[str, Argument]:
    hints = typing.get_type_hints(cls)  # `field.type` is not reliable: HfArgumentParser overwrites it
    found = {}
    for field in dataclasses.fields(cls):
        if field.init:
            default = None if field.default is dataclasses.MISSING else field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            found[field.name] = Argument(hints[field.name], default, tuple(field.metadata.get("choices") or ()))
    return found


def _best_kind(given: Mapping[str, Any]) -> tuple[str, str]:
    """The kind that has most of the keys, and the key that distinguishes it from most other kinds."""
    known = {kind: [key for key in given if key in arguments_of(kind)] for kind in _installed_kinds()}
    kind = max(known, key=lambda name: len(known[name]))
    if len(known) == 1 and (other := [key for key in given if key not in known[kind]]):
        rule = f"`{other[0]}` is not an argument of transformers, and trl, which may have it, is not installed"
        raise ValueError(f"{rule}: pip install trl, or give `--kind trainer`")
    special = [key for key in known[kind] if key not in known["trainer"]]
    if not special:
        return kind, "has no key of TRL"
    return kind, f"has `{min(special, key=lambda key: len(kinds_with(key)))}`"


def _installed_kinds() -> tuple[str, ...]:
    return KINDS if importlib.util.find_spec("trl") else KINDS[:1]
