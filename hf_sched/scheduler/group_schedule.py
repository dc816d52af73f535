"""What the parameter groups of a run train on: a schedule, their peaks, and where a resume has joined it.

Mostly a group_schedule is just its schedule. A run that is resumed under another one may have to get from the learning rates it
had to the new curve: that stretch is a `ResumeTransition`. One that was told to cool down while it ran is on the curve of that
`Cooldown`, which is the one requested up to there.
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
class ResumeTransition:
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
    """What a running run was told: to leave the schedule that was requested, and end."""

    step: int
    """The first optimizer step of the cooldown."""
    steps: int
    requested: str
    """The schedule that was requested."""

    @property
    def end(self) -> int:
        """The optimizer steps of the run."""
        return self.step + self.steps

    def __str__(self) -> str:
        return f"told at step {self.step} to cool down over {self.steps} step{'s' * (self.steps != 1)}"


@dataclass(frozen=True)
class GroupSchedule:
    """The learning rates of all parameter groups at every optimizer step.

    Args:
        schedule: The curve.
        peaks: Each group's peak learning rate.
        transition: Where and how the curve was joined by a resume, if it was.
        cooldown: What the run was told, if it was.

    Raises:
        ValueError: The floor is above a group's peak; the message names the group.
    """

    schedule: Schedule
    peaks: tuple[float, ...]
    transition: ResumeTransition | None = None
    cooldown: Cooldown | None = None

    def __post_init__(self) -> None:
        for number, peak in enumerate(self.peaks):
            try:
                self.schedule.floor(peak)
            except ValueError as error:
                raise ValueError(f"parameter group {number}: {error}") from None

    @property
    def requested(self) -> Schedule:
        """The curve that was requested."""
        return Schedule.parse(self.cooldown.requested) if self.cooldown else self.schedule

    @property
    def alike(self) -> bool:
        """Whether all groups always have the same learning rate."""
        return len(set(self.peaks)) == 1 and (self.transition is None or len(set(self.transition.rates)) == 1)

    def rates(self, first: int, stop: int, groups: slice = slice(None)) -> Array:
        """The learning rates of steps `first` to `stop - 1`, float64 of shape (groups, stop - first)."""
        planned = self.schedule.rates(first, stop, self._peaks[groups], self._floors[groups])
        if self.transition is None or stop <= self.transition.step:
            return planned
        return self._joined(self.transition, planned, np.arange(first, stop, dtype=np.float64), groups)

    def _joined(self, transition: ResumeTransition, planned: Array, steps: Array, groups: slice) -> Array:
        before = np.array(transition.rates)[groups, None]
        if transition.how == "rewarm":
            # A straight blend: on the schedule with the last of its steps.
            share = np.clip((steps - transition.step + 1) / transition.steps, 0.0, 1.0)
            blend = before + (planned - before) * share
            return np.where((steps < transition.step) | (share == 1.0), planned, blend)
        # The rest of the curve, stretched so that it starts from the rate there was and ends where it ends.
        here, end = (
            self.schedule.rates(step, step + 1, self._peaks[groups], self._floors[groups])
            for step in (transition.step, self.schedule.num_training_steps - 1)
        )
        left = np.clip((transition.step + transition.steps - 1 - steps) / max(transition.steps - 1, 1), 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Where the curve stays level, nothing can be stretched: a straight line.
            share = np.clip(np.where(here > end, (planned - end) / (here - end), left), 0.0, 1.0)
        # Weighted, not `end + (before - end) * share`: that would lose digits of a rate that is small beside the other.
        return np.where(steps < transition.step, planned, before * share + end * (1.0 - share))

    @cached_property
    def _peaks(self) -> Array:
        return np.array(self.peaks, dtype=np.float64)

    @cached_property
    def _floors(self) -> Array:
        return np.array([self.schedule.floor(peak) for peak in self.peaks])

    def state(self) -> dict[str, Any]:
        """Plain values that `from_state` reads."""
        transition = self.transition and {**vars(self.transition), "rates": list(self.transition.rates)}
        return {
            "schedule": str(self.schedule),
            "num_training_steps": self.schedule.num_training_steps,
            "base_lrs": list(self.peaks),
            "transition": transition,
            "cooldown": self.cooldown and vars(self.cooldown),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> GroupSchedule:
        """The group_schedule that `state` was taken of."""
        transition, cooldown = state.get("transition"), state.get("cooldown")
        return cls(
            Schedule.parse(state["schedule"]),
            tuple(state["base_lrs"]),
            ResumeTransition(**{**transition, "rates": tuple(transition["rates"])}) if transition else None,
            Cooldown(**cooldown) if cooldown else None,
        )
