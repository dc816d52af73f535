"""Schedules by name, ours or transformers' own, and their curves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hf_sched.integrations import builtin_schedules
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import NO_UNITS, StepUnits

# Arguments that are learning rates, not fractions of the peak.
_ABSOLUTE = re.compile(r"\b(min_lr|lr_end|max_lr)\b")


class LabeledCurve(NamedTuple):
    """A curve of shape (num_training_steps,) with its label; its schedule is None for transformers' own schedules."""

    label: str
    curve: npt.NDArray[np.float64]
    schedule: Schedule | None


@dataclass(frozen=True)
class NamedSchedule:
    """A schedule by its name, one of ours or of transformers, with its arguments."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """`lr_scheduler_kwargs`."""
    label: str = ""
    """The text that it was read from."""

    @classmethod
    def read(cls, text: str) -> NamedSchedule:
        """Read a text as `hf_sched.schedules.schedule_text` does.

        Raises:
            ArgumentError: The name is unknown, or the arguments do not parse.
        """
        name, arguments = schedule_text.read(text, argument="schedule")
        if name not in registry.BUILTIN_NAMES and name not in registry.available():
            raise registry.unknown_schedule(name)
        return cls(name, arguments, text.strip())

    @property
    def has_own_warmup(self) -> bool:
        """Whether its arguments contain a warmup, so that no other one may be added."""
        first = str(self.arguments.get("phases", "")).split()[:1]
        return "warmup" in self.arguments or first == ["warmup"]

    @property
    def needs_peak(self) -> bool:
        """Whether the shape of its curve depends on the peak."""
        return bool(_ABSOLUTE.search(f"{dict(self.arguments)}")) or self.name == "polynomial"

    def curve(
        self, num_training_steps: int, num_warmup_steps: int, peak: float, units: StepUnits = NO_UNITS
    ) -> LabeledCurve | None:
        """Its curve in a run; None if it follows a metric. Arguments as in `Entry.build`.

        Raises:
            ArgumentError: An argument is wrong or does not fit the run.
        """
        label = self.label or self.name
        if self.name in registry.available():
            entry, arguments = registry.entry(self.name), dict(self.arguments)
            schedule = entry.build(num_training_steps, num_warmup_steps, arguments, units)
            return LabeledCurve(label, schedule.curve(peak=peak), schedule)
        steps = {"num_training_steps": num_training_steps, "num_warmup_steps": num_warmup_steps}
        curve = builtin_schedules.curve(self.name, self.arguments, **steps, peak=peak)
        return None if curve is None else LabeledCurve(label, curve, None)
