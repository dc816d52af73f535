"""What somebody asks to see: a schedule's name with arguments, phases as text, or a configuration, and its curve.

cosine_floor
cosine_restarts:num_cycles=3,floor_ratio=0.1
cosine_with_min_lr:{"min_lr": 1e-6}
"warmup 5% | hold | decay 20% 1-sqrt"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.integrations import builtin_schedules as builtin
from hf_sched.schedules import registry
from hf_sched.schedules.phases import KINDS
from hf_sched.schedules.schedule import Schedule

# They are learning rates, not shares of the peak.
_ABSOLUTE = re.compile(r"\b(min_lr|lr_end|max_lr)\b")


@dataclass(frozen=True)
class NamedSchedule:
    """A schedule that somebody asks for, ours or transformers' own."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What `lr_scheduler_kwargs` would hold."""
    label: str = ""
    """As it was written."""

    @classmethod
    def read(cls, text: str) -> NamedSchedule:
        """Read `NAME`, `NAME:ARGUMENT=VALUE,...`, `NAME:{JSON or YAML}` or a text in the phase language.

        Raises:
            ValueError: The name is none, or what stands behind it cannot be read.
        """
        words = text.split()
        if "|" in text or (words and words[0] in KINDS):
            return cls("phases", {"phases": text}, text)
        name, colon, behind = text.strip().partition(":")
        if name not in builtin.BUILTIN and name not in registry.available():
            raise registry.unknown_schedule(name)
        arguments = _arguments(behind) if colon else {}
        return cls(name, arguments, text.strip())

    @property
    def is_ours(self) -> bool:
        """Whether it is one of hf_sched's or the user's, rather than transformers' own."""
        return self.name in registry.available()

    @property
    def brings_warmup(self) -> bool:
        """Whether it says its own warmup, so that it cannot be given another."""
        if not self.is_ours or "warmup" in self.arguments:
            return self.is_ours
        first = str(self.arguments.get("phases", "")).split()
        return self.name == "phases" and first[:1] == ["warmup"]

    @property
    def needs_peak(self) -> bool:
        """Whether its curve depends on the learning rate by more than a factor."""
        return bool(_ABSOLUTE.search(f"{dict(self.arguments)}")) or self.name == "polynomial"

    def play(self, num_training_steps: int, num_warmup_steps: int, peak: float) -> LabeledCurve | None:
        """Its curve in a run, arguments as in `hf_sched.build`, `peak` the learning rate; None if it follows a metric.

        Raises:
            ValueError: Something does not fit.
        """
        if self.is_ours:
            schedule = registry.entry(self.name).build(num_training_steps, num_warmup_steps, dict(self.arguments))
            return LabeledCurve(self.label or self.name, schedule.curve(peak=peak), schedule)
        curve = builtin.curve(
            self.name,
            num_training_steps=num_training_steps,
            num_warmup_steps=num_warmup_steps,
            peak=peak,
            **self.arguments,
        )
        return None if curve is None else LabeledCurve(self.label or self.name, curve, None)


@dataclass(frozen=True)
class LabeledCurve:
    """A curve, and what it is the curve of."""

    label: str
    curve: npt.NDArray[np.float64]
    """Learning rates of shape (num_training_steps,)."""
    schedule: Schedule | None
    """None for transformers' own."""


def _arguments(text: str) -> dict[str, Any]:
    import yaml

    pairs = text if text.lstrip().startswith("{") else "{" + re.sub(r"(^|,)\s*(\w+)\s*=", r"\1 \2: ", text) + "}"
    try:
        arguments = yaml.safe_load(pairs)
    except yaml.YAMLError:
        arguments = None
    if not isinstance(arguments, dict) or any(value is None for value in arguments.values()):
        raise ValueError(
            f"what stands behind the name must be arguments (floor_ratio=0.1,num_cycles=3) or a mapping in JSON, "
            f"received {text!r}"
        )
    return arguments
