"""A training configuration as somebody wrote it: a YAML or JSON file of arguments, and the trainer it is meant for."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_sched.schedules.validation import ArgumentError, Reader

# The arguments that each kind of trainer takes: where the class is, and what its scripts take beside it.
TRAINING_ARGUMENTS = {
    "trainer": ("transformers", "TrainingArguments"),
    "sft": ("trl", "SFTConfig"),
    "grpo": ("trl", "GRPOConfig"),
    "dpo": ("trl", "DPOConfig"),
    "kto": ("trl", "KTOConfig"),
    "reward": ("trl", "RewardConfig"),
    "rloo": ("trl", "RLOOConfig"),
}
KINDS = tuple(TRAINING_ARGUMENTS)
SCRIPT_ARGUMENTS = ("ScriptArguments", "ModelConfig", "DatasetMixtureConfig")
# What recipes/sft.py and recipes/grpo.py take besides.
RECIPE_KEYS = (
    "anneal_from",
    "anneal_duration",
    "anneal_shape",
    "columns",
    "dry_run",
    "evaluate_on",
    "evaluate_config",
    "evaluate_split",
    "evaluate_columns",
    "evaluate_metric",
    "evaluate_max_problems",
    "evaluate_max_new_tokens",
    "evaluate_samples",
    "evaluate_temperature",
    "evaluate_batch_size",
    "evaluate_engine",
    "instruction",
    "reward_funcs",
)
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
    comments: str = ""
    """The comments at the top of the file without their marks: where a recipe says how it is launched."""

    @classmethod
    def read(cls, path: str | Path, kind: str | None = None) -> RunConfig:
        """Read a YAML or JSON file of arguments.

        Args:
            path: The file.
            kind: One of `KINDS`; by default what the comments at its top (`recipes/grpo.py`, `trl sft`) or its keys
                say.

        Raises:
            ValueError: There is no such file, it is no mapping, or `kind` is none of `KINDS`.
        """
        path = Path(path)
        if kind is not None and kind not in KINDS:
            raise ArgumentError("kind", f"one of {', '.join(KINDS)}", kind)
        if not path.is_file():
            raise ValueError(f"there is no file {str(path)!r}: give a YAML or JSON file of training arguments")
        text = path.read_text(encoding="utf-8")
        given = _parse(text, path)
        if not isinstance(given, dict):
            raise ValueError(f"{path}: must be a mapping of arguments (`learning_rate: 2.0e-5`), received {given!r}")
        comments = _comments_at_the_top(text)
        arguments = {str(key): value for key, value in given.items()}
        return cls(kind or _kind_of(comments, arguments), arguments, str(path), comments)

    @cached_property
    def fields(self) -> dict[str, dataclasses.Field[Any]]:
        """What its trainer's own arguments and those of TRL's scripts may be; imports transformers, and trl."""
        module, name = TRAINING_ARGUMENTS[self.kind]
        imported = __import__(module)
        classes = [getattr(imported, name)]
        if module == "trl":
            classes += [getattr(imported, other) for other in SCRIPT_ARGUMENTS]
        return {field.name: field for cls in classes for field in dataclasses.fields(cls)}

    def value(self, name: str) -> Any:
        """What was written for an argument, or its default.

        Raises:
            KeyError: Its trainer has no such argument.
        """
        if name in self.given:
            return self.given[name]
        field = self.fields[name]
        return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()

    def get(self, name: str, reader: Reader | None = None) -> Any:
        """As `value`, but None where the trainer has no such argument; a reader checks what is not None.

        Raises:
            ValueError: The reader refuses the value.
        """
        value = self.value(name) if name in self.given or name in self.fields else None
        return value if reader is None or value is None else reader(name, value)

    def read_value(self, name: str, reader: Reader) -> Any:
        """As `value`, checked and in its one form.

        Raises:
            ValueError: The reader refuses the value.
        """
        return reader(name, self.value(name))


def _parse(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _comments_at_the_top(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return "\n".join(lines)


def _kind_of(comments: str, given: Mapping[str, Any]) -> str:
    named = re.search(rf"(?:\btrl |/|scripts\.)({'|'.join(KINDS[1:])})(?:\.py\b|\b)", comments)
    if named:
        return named[1]
    for kind, keys in _TELLING.items():
        if any(key in given for key in keys):
            return kind
    return "trainer"
