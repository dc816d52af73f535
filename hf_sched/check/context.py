"""The configuration under check, what is known about the run, and the findings so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_sched.check.finding import Finding, Severity
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError


class Subject:
    """A configuration under check. The checks add their findings to it.

    Args:
        config: The configuration.
        dataset_size: Samples of the training data, if they are known.
        num_processes: The number of processes; None if it is unknown.
        allowed: Further keys that the user's script accepts.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset_size: int | None = None,
        num_processes: int | None = None,
        allowed: Collection[str] = (),
    ) -> None:
        self.config = config
        self.kind, self.given, self.arguments = config.kind, config.given, config.fields
        self.dataset_size, self.num_processes, self.allowed = dataset_size, num_processes, allowed
        self.findings: list[Finding] = []
        self.not_judged: list[str] = []

    @property
    def wrong(self) -> set[str]:
        """The keys with errors; of a nested key the outer one."""
        return {finding.key.split(".")[0] for finding in self.findings if finding.severity == "error"}

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

    def number(self, name: str) -> float | None:
        """The value as a number, also if it is text; None if it is not a number."""
        value = self.config.get(name)
        try:
            return None if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            return None

    def flag(self, name: str) -> bool:
        """Whether the value is true, also if it is text that a parser reads as true."""
        return self.text(name).lower() in ("true", "t", "yes", "y", "on", "1")

    def text(self, name: str) -> str:
        """The value as text; for a member of an enum its value."""
        value = self.config.get(name)
        return str(getattr(value, "value", value))

    def find(self, severity: Severity, key: str, message: str) -> None:
        """Add a finding about a key; `lr_scheduler_kwargs.min_lr` for a nested one."""
        value: Any = self.given if key else None
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        lines = self.lines.get(key) or self.lines.get(key.partition(".")[0])
        finding = Finding(key, value, lines[-1] if lines else None, severity, message)
        if finding not in self.findings:
            self.findings.append(finding)

    def error(self, key: str, message: str) -> None:
        self.find("error", key, message)

    def warning(self, key: str, message: str) -> None:
        self.find("warning", key, message)

    def rejected(self, error: ArgumentError, within: str = "") -> None:
        """Add an argument error, about a key or an entry of the mapping `within`."""
        self.error(f"{within}.{error.name}" if within else error.name, error.detail)
