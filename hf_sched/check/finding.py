"""What a check finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A mistake in a configuration, and what to write instead."""

    key: str
    """The argument; `lr_scheduler_kwargs.min_lr` within another."""
    value: Any
    """What was written."""
    line: int | None
    """Where in the file, from 1; None where it is not in the file."""
    severity: Severity
    """An error fails, is dropped, or trains something else than was written; a warning works, but not for long or not
    everywhere."""
    message: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
