"""A training configuration as somebody wrote it: a YAML or JSON file of arguments, and the trainer it is meant for."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_sched.arguments import refuse

# The arguments that each kind of trainer takes: where the class is, and what its scripts take beside it.
_TRAINING_ARGUMENTS = {
    "trainer": ("transformers", "TrainingArguments"),
    "sft": ("trl", "SFTConfig"),
    "grpo": ("trl", "GRPOConfig"),
    "dpo": ("trl", "DPOConfig"),
    "kto": ("trl", "KTOConfig"),
    "reward": ("trl", "RewardConfig"),
    "rloo": ("trl", "RLOOConfig"),
}
KINDS = tuple(_TRAINING_ARGUMENTS)
_SCRIPT_ARGUMENTS = ("ScriptArguments", "ModelConfig", "DatasetMixtureConfig")
# What recipes/sft.py and recipes/grpo.py take besides.
RECIPE_KEYS = ("anneal_from", "anneal_duration", "anneal_shape", "reward_funcs")
# Keys that only one kind has, for a file that does not say what it is for.
_TELLING = {
    "grpo": ("num_generations", "reward_funcs", "max_completion_length"),
    "dpo": ("beta", "loss_type", "ref_model_init_kwargs"),
    "sft": (
        "max_length",
        "max_seq_length",
        "packing",
        "completion_only_loss",
        "assistant_only_loss",
        "dataset_text_field",
    ),
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The arguments of a run."""

    kind: str
    """One of `KINDS`."""
    given: Mapping[str, Any]
    """What was written, as it was written."""
    source: str = "the configuration"
    """The name of the file, for messages."""

    @classmethod
    def read(cls, path: str | Path, kind: str | None = None) -> RunConfig:
        """Read a YAML or JSON file of arguments.

        Args:
            path: The file.
            kind: One of `KINDS`; by default what the comments in it (`recipes/grpo.py`, `trl sft`) or its keys say.

        Raises:
            ValueError: There is no such file, it is no mapping, or `kind` is none of `KINDS`.
        """
        path = Path(path)
        if kind is not None and kind not in KINDS:
            raise refuse("kind", f"one of {', '.join(KINDS)}", kind)
        if not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}: give a YAML or JSON file of training arguments")
        text = path.read_text(encoding="utf-8")
        given = _parse(text, path)
        if not isinstance(given, dict):
            raise ValueError(f"{path}: must be a mapping of arguments (`learning_rate: 2.0e-5`), received {given!r}")
        return cls(kind or _kind_of(text, given), {str(key): value for key, value in given.items()}, str(path))

    @cached_property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """What its trainer's own arguments and those of TRL's scripts may be; imports transformers, and trl."""
        module, name = _TRAINING_ARGUMENTS[self.kind]
        imported = __import__(module)
        classes = [getattr(imported, name)]
        if module == "trl":
            classes += [getattr(imported, other) for other in _SCRIPT_ARGUMENTS]
        return {field.name: field for cls in classes for field in dataclasses.fields(cls)}

    def value(self, name: str) -> Any:
        """What was written for an argument, or its default.

        Raises:
            KeyError: Its trainer has no such argument.
        """
        if self.given.get(name) is not None:
            return self.given[name]
        field = self.fields[name]
        return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _parse(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _kind_of(text: str, given: Mapping[str, Any]) -> str:
    comments = " ".join(line for line in text.splitlines() if line.startswith("#"))
    named = re.search(rf"(?:\btrl |/|scripts\.)({'|'.join(KINDS[1:])})(?:\.py\b|\b)", comments)
    if named:
        return named[1]
    for kind, keys in _TELLING.items():
        if any(key in given for key in keys):
            return kind
    return "trainer"
