"""The configuration under check, with its arguments, its lines, and what is known about the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_sched.check.finding import Finding, Severity
from hf_sched.plan.training_config import Argument, TrainingConfig
from hf_sched.schedules.validation import ArgumentError


@dataclasses.dataclass(frozen=True)
class Subject:
    """A configuration under check."""

    config: TrainingConfig
    dataset_size: int | None = None
    num_processes: int | None = None
    """None if it is unknown."""
    allowed: frozenset[str] = frozenset()
    """Further keys that the user's script accepts."""
    not_judged: list[str] = dataclasses.field(default_factory=list)

    @property
    def kind(self) -> str:
        """The kind of trainer."""
        return self.config.kind

    @property
    def given(self) -> Mapping[str, Any]:
        """The keys and values of the file."""
        return self.config.given

    @property
    def arguments(self) -> dict[str, Argument]:
        """All arguments of the trainer and its script."""
        return self.config.fields

    @property
    def converts_text(self) -> bool:
        """Whether the script's parser converts text to numbers. TRL's parser does, the parser of transformers not."""
        return self.kind != "trainer"

    @cached_property
    def lines(self) -> dict[str, list[int]]:
        """The lines of each key in the file, counted from 1; `lr_scheduler_kwargs.min_lr` for a nested key."""
        import yaml

        found: dict[str, list[int]] = {}

        def walk(node: yaml.Node | None, prefix: str) -> None:
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                        found.setdefault(f"{prefix}{key.value}", []).append(key.start_mark.line + 1)
                        walk(value, f"{prefix}{key.value}.")

        path = Path(self.config.source)
        if path.is_file():
            walk(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), "")  # parses JSON as well
        return found

    def value(self, name: str) -> Any:
        """The value in the file, else the default; None if the trainer has no such argument."""
        return self.config.get(name)

    def number(self, name: str) -> float | None:
        """The value as a number, also if it is text; None if it is not a number."""
        value = self.value(name)
        try:
            return None if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            return None

    def whole(self, name: str) -> int | None:
        """Like `number`, but None if it is not a whole number."""
        number = self.number(name)
        return int(number) if number is not None and number.is_integer() else None

    def flag(self, name: str) -> bool:
        """Whether the value is true, also if it is text that a parser reads as true."""
        value = self.value(name)
        return value is True or (isinstance(value, str) and value.lower() in ("true", "t", "yes", "y", "on", "1"))

    def text(self, name: str) -> str:
        """The value as text; for a member of an enum its value."""
        value = self.value(name)
        return str(getattr(value, "value", value))

    def find(self, severity: Severity, key: str, message: str) -> Finding:
        """A finding about a key; `lr_scheduler_kwargs.min_lr` for a nested one."""
        value: Any = self.given if key else None
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return Finding(key, value, self.lines.get(key, [None])[-1], severity, message)

    def error(self, key: str, message: str) -> Finding:
        """An error about a key."""
        return self.find("error", key, message)

    def warning(self, key: str, message: str) -> Finding:
        """A warning about a key."""
        return self.find("warning", key, message)

    def rejected(self, error: ArgumentError, within: str = "") -> Finding:
        """An argument error as a finding, about a key or an entry of the mapping `within`."""
        return self.error(f"{within}.{error.name}" if within else error.name, error.detail)
