"""The configuration under check, what is known about the run, and the findings so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_sched.check.finding import Finding, Severity
from hf_sched.plan.processes import WorldSize
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.peak_range import PeakRange
from hf_sched.schedules.validation import ArgumentError

KWARGS = "lr_scheduler_kwargs"


@dataclass
class Subject:
    """A configuration under check."""

    config: TrainingConfig
    dataset_size: int | None = None
    """Samples of the training data, if they are known."""
    tokens_per_sample: float | None = None
    num_processes: int | None = None
    """None if it is unknown."""
    accelerate_config: str | None = None
    allowed: Collection[str] | None = None
    """Further keys that the user's script accepts; None if it accepts none."""
    launch: Mapping[str, Any] | None = None
    """The contents of the Accelerate configuration."""
    world_size: WorldSize | None = None
    findings: list[Finding] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    typed: dict[str, Any] = field(default_factory=dict)
    """The values of known arguments as the script's parser converts them, from `check_values`."""
    peak: PeakRange | None = None
    """The usual peak learning rates, from `check_peak`."""

    @property
    def wrong(self) -> set[str]:
        """The keys with errors; of a nested key the outer one."""
        return {finding.key.split(".")[0] for finding in self.findings if finding.severity == "error"}

    @property
    def usable(self) -> TrainingConfig:
        """The configuration without unknown keys and wrong values."""
        wrong = self.wrong
        return dataclasses.replace(self.config, given={k: v for k, v in self.typed.items() if k not in wrong})

    def get(self, name: str) -> Any:
        """The value with its right type; the default if it is missing or wrong; None without such an argument."""
        value = self.usable.get(name)
        return getattr(value, "value", value)  # of an enum

    @cached_property
    def lines(self) -> dict[str, list[int]]:
        """The lines of each key in the file, counted from 1; `lr_scheduler_kwargs.min_lr` for a nested key."""
        import yaml

        def entries(node: yaml.Node | None) -> list[tuple[str, int, yaml.Node]]:
            pairs = node.value if isinstance(node, yaml.MappingNode) else ()
            return [(str(key.value), key.start_mark.line + 1, value) for key, value in pairs if key.value != "<<"]

        path = Path(self.config.source)
        found: dict[str, list[int]] = {}
        if path.is_file():
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)  # parses JSON as well
            for key, line, value in entries(root):
                found.setdefault(key, []).append(line)
                for inner, inner_line, _ in entries(value):
                    found.setdefault(f"{key}.{inner}", []).append(inner_line)
        return found

    def find(self, severity: Severity, key: str, message: str) -> Finding:
        """A finding about a key; `lr_scheduler_kwargs.min_lr` for a nested one."""
        value: Any = self.config.given if key else None
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        outer = key.partition(".")[0]
        lines = self.lines.get(key) or self.lines.get("lr_scheduler_type" if outer == KWARGS else outer)
        return Finding(key, value, lines[-1] if lines else None, severity, message)

    def error(self, key: str, message: str) -> Finding:
        """An error about a key."""
        return self.find("error", key, message)

    def warning(self, key: str, message: str) -> Finding:
        """A warning about a key."""
        return self.find("warning", key, message)

    def rejected(self, error: ArgumentError, within: str = "") -> Finding:
        """An argument error, about a key or an entry of the mapping `within`."""
        return self.error(f"{within}.{error.name}" if within else error.name, error.detail)
