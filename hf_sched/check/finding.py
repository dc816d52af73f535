"""Findings of `hf-sched check`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from hf_sched.schedules.peak_range import PeakRange

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A mistake in a configuration and its remedy."""

    key: str
    """The argument; `lr_scheduler_kwargs.min_lr` for a nested one; empty if it is unknown."""
    value: Any
    line: int | None
    """The line of the key, or of the mapping that lacks it, counted from 1; None if neither is in the file."""
    severity: Severity
    """An error fails, is ignored, or trains something else than written. A warning works, but may not for long."""
    message: str


@dataclass(frozen=True)
class CheckReport:
    """The findings about a configuration of a `kind`, one of `hf_sched.plan.training_config.KINDS`."""

    source: str
    kind: str
    findings: tuple[Finding, ...]
    """In the order of the file."""
    not_judged: tuple[str, ...] = ()
    """What could not be checked, and which information would make it possible."""
    assumed: tuple[str, ...] = ()
    """What the check assumes because neither the configuration nor the caller specifies it."""
    peak: PeakRange | None = None
    """The usual peak learning rates of such a run; None if they are unknown."""

    @property
    def errors(self) -> list[Finding]:
        """Only the errors."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {**asdict(self), "ok": self.ok}


def as_yaml(value: Any) -> str:
    """A value as YAML on one line, for messages."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return text.removesuffix("...").strip()
