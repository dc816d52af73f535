"""What the parameter groups of a run train on: a schedule, their peaks, and where a resume has joined it.

Mostly a course is just its schedule. A run that is resumed under another one may have to get from the learning rates it
had to the new curve: that stretch is a `Joint`. One that was told to cool down while it ran is on the curve of that
`Cooldown`, which is the one asked for up to there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.schedule import Schedule

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Joint:
    """How a resumed run gets from the learning rates it had to the schedule it was given."""

    how: Literal["continue", "rewarm"]
    step: int
    """The first optimizer step after the resume."""
    rates: tuple[float, ...]
    """Each group's learning rate at that step, had nothing been changed."""
    steps: int
    """Optimizer steps until the run is on the schedule; with `continue` that is when it ends."""


@dataclass(frozen=True)
class Cooldown:
    """What a running run was told: to leave the schedule that was asked for, and end."""

    step: int
    """The first optimizer step of the cooldown."""
    steps: int
    asked: str
    """The schedule that was asked for."""

    @property
    def end(self) -> int:
        """The optimizer steps of the run."""
        return self.step + self.steps

    def __str__(self) -> str:
        return f"told at step {self.step} to cool down over {self.steps} step{'s' * (self.steps != 1)}"


@dataclass(frozen=True)
class Course:
    """The learning rates of all parameter groups at every optimizer step.

    Args:
        schedule: The curve.
        peaks: Each group's peak learning rate.
        joint: Where and how the curve was joined by a resume, if it was.
        cooldown: What the run was told, if it was.

    Raises:
        ValueError: The floor is above a group's peak; the message names the group.
    """

    schedule: Schedule
    peaks: tuple[float, ...]
    joint: Joint | None = None
    cooldown: Cooldown | None = None

    def __post_init__(self) -> None:
        for number, peak in enumerate(self.peaks):
            try:
                self.schedule.floor(peak)
            except ValueError as error:
                raise ValueError(f"parameter group {number}: {error}") from None

    @property
    def asked(self) -> Schedule:
        """The curve that was asked for."""
        return Schedule.parse(self.cooldown.asked) if self.cooldown else self.schedule

    @property
    def alike(self) -> bool:
        """Whether all groups always have the same learning rate."""
        return len(set(self.peaks)) == 1 and (self.joint is None or len(set(self.joint.rates)) == 1)

    def rates(self, first: int, stop: int, groups: slice = slice(None)) -> Array:
        """The learning rates of steps `first` to `stop - 1`, float64 of shape (groups, stop - first)."""
        planned = self.schedule.rates(first, stop, self._peaks[groups], self._floors[groups])
        if self.joint is None or stop <= self.joint.step:
            return planned
        return self._joined(self.joint, planned, np.arange(first, stop, dtype=np.float64), groups)

    def _joined(self, joint: Joint, planned: Array, steps: Array, groups: slice) -> Array:
        before = np.array(joint.rates)[groups, None]
        if joint.how == "rewarm":
            # A straight blend: on the schedule with the last of its steps.
            share = np.clip((steps - joint.step + 1) / joint.steps, 0.0, 1.0)
            blend = before + (planned - before) * share
            return np.where((steps < joint.step) | (share == 1.0), planned, blend)
        # The rest of the curve, stretched so that it starts from the rate there was and ends where it ends.
        here, end = (
            self.schedule.rates(step, step + 1, self._peaks[groups], self._floors[groups])
            for step in (joint.step, self.schedule.num_training_steps - 1)
        )
        left = np.clip((joint.step + joint.steps - 1 - steps) / max(joint.steps - 1, 1), 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Where the curve stays level, nothing can be stretched: a straight line.
            height = np.where(here > end, (planned - end) / (here - end), left)
        return np.where(steps < joint.step, planned, end + (before - end) * np.clip(height, 0.0, 1.0))

    @cached_property
    def _peaks(self) -> Array:
        return np.array(self.peaks, dtype=np.float64)

    @cached_property
    def _floors(self) -> Array:
        return np.array([self.schedule.floor(peak) for peak in self.peaks])

    def state(self) -> dict[str, Any]:
        """Plain values that `from_state` reads."""
        joint = self.joint and {**vars(self.joint), "rates": list(self.joint.rates)}
        return {
            "schedule": str(self.schedule),
            "num_training_steps": self.schedule.num_training_steps,
            "base_lrs": list(self.peaks),
            "joint": joint,
            "cooldown": self.cooldown and vars(self.cooldown),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Course:
        """The course that `state` was taken of."""
        joint, cooldown = state.get("joint"), state.get("cooldown")
        return cls(
            Schedule.parse(state["schedule"]),
            tuple(state["base_lrs"]),
            Joint(**{**joint, "rates": tuple(joint["rates"])}) if joint else None,
            Cooldown(**cooldown) if cooldown else None,
        )
