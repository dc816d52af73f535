"""The learning rates of all parameter groups: a schedule, each group's peak, and changes made during the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.phases import FLOOR, PEAK
from hf_sched.schedules.schedule import OPEN, Schedule

Array = npt.NDArray[np.float64]

OWN_SCHEDULE = "lr_schedule"
"""The key of a parameter group for the text of a schedule that only this group follows."""


@dataclass(frozen=True)
class ResumeTransition:
    """How a resumed run moves from the learning rates it had to the new schedule."""

    how: Literal["continue", "rewarm"]
    step: int
    """The first optimizer step after the resume."""
    rates: tuple[float | None, ...]
    """Each group's learning rate at that step under the schedule of the checkpoint; None for a group that was added
    later, which is on the new schedule."""
    steps: int
    """Optimizer steps until the run is on the new schedule; with `continue`, to the end of the run."""


@dataclass(frozen=True)
class Cooldown:
    """A live cooldown: the run leaves the requested schedule, decays to the floor and ends."""

    step: int
    """The first optimizer step of the cooldown."""
    steps: int
    requested: str
    """The requested schedule as text."""
    sets_floor: bool = False
    """Whether the request set the floor, for the groups with their own schedules as well."""
    planned: int | None = None
    """Optimizer steps of the run that was requested; None if they are unknown."""

    @property
    def end(self) -> int:
        """Optimizer steps of the shortened run."""
        return self.step + self.steps

    def __str__(self) -> str:
        return f"live cooldown from step {self.step} over {self.steps} step{'s' * (self.steps != 1)}"


@dataclass(frozen=True)
class GroupSchedule:
    """The learning rates of all parameter groups at every optimizer step.

    Raises:
        ValueError: The floor is above a group's peak; the message names the group.
    """

    schedule: Schedule
    peaks: tuple[float, ...]
    transition: ResumeTransition | None = None
    """How the last resume moved to the curve, if it changed the schedule."""
    cooldown: Cooldown | None = None
    own: tuple[Schedule | None, ...] = ()
    """The schedules of groups that have their own, None for the others; empty if no group has one."""

    def __post_init__(self) -> None:
        for number in range(len(self.peaks)):
            try:
                self._floor(number)
            except ValueError as error:
                raise ValueError(f"parameter group {number}: {error}") from None

    @property
    def requested(self) -> Schedule:
        """The schedule that the run was started with."""
        if self.cooldown is None:
            return self.schedule
        return Schedule.parse(self.cooldown.requested).in_run(self.cooldown.planned)

    def requests_same(self, other: GroupSchedule) -> bool:
        """Whether both request the same learning rate for each group at every step, in runs of any length."""
        if self.peaks != other.peaks or len(self.own) != len(other.own):
            return False
        pairs = zip((self.requested, *self.own), (other.requested, *other.own), strict=True)
        return all(one.has_same_curve(another) if one and another else one is another for one, another in pairs)

    def in_run(self, num_training_steps: int | None) -> GroupSchedule:
        """The same learning rates, where a run of another length requests them."""
        if num_training_steps == self.requested.num_training_steps:
            return self
        if self.cooldown is not None:
            return replace(self, cooldown=replace(self.cooldown, planned=num_training_steps))
        return replace(self, schedule=self.schedule.in_run(num_training_steps))

    @property
    def has_equal_rates(self) -> bool:
        """Whether all groups have the same learning rate at every step."""
        has_equal_peaks = len(set(self.peaks)) == 1 and not self.own
        return has_equal_peaks and (self.transition is None or len(set(self.transition.rates)) == 1)

    def regrouped(
        self, numbers: Sequence[int | None], peaks: Sequence[float], own: Sequence[Schedule | None]
    ) -> GroupSchedule:
        """The same for other groups: each has had a number before, or None, which puts it on its schedule."""
        old, transition = self.peaks, self.transition
        if transition is not None:
            rates = tuple(None if number is None else transition.rates[number] for number in numbers)
            transition = replace(transition, rates=rates)
        kept = tuple(p if number is None else old[number] for number, p in zip(numbers, peaks, strict=True))
        return replace(self, peaks=kept, transition=transition, own=tuple(own) if any(own) else ())

    def rates(self, first: int, stop: int, groups: slice = slice(None)) -> Array:
        """The learning rates of steps `first` to `stop - 1`, float64 of shape (groups, stop - first)."""
        transition, planned = self.transition, self._planned(first, stop, groups)
        if transition is None or stop <= transition.step:
            return planned
        steps, before = np.arange(first, stop, dtype=np.float64), np.array(transition.rates, float)[groups, None]
        is_planned = (steps < transition.step) | np.isnan(before)
        if transition.how == "rewarm":
            # A linear blend that reaches the schedule with its last step.
            share = np.clip((steps - transition.step + 1) / transition.steps, 0.0, 1.0)
            blend = before + (planned - before) * share
            return np.where(is_planned | (share == 1.0), planned, blend)
        # The rest of the curve, scaled so that it starts at the previous rate and ends where the curve ends.
        fixed = (transition.step, transition.step + transition.steps - 1)
        here, end = (self._planned(step, step + 1, groups) for step in fixed)
        left = np.clip((transition.step + transition.steps - 1 - steps) / max(transition.steps - 1, 1), 0.0, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # A constant curve cannot be scaled: decay linearly instead.
            share = np.clip(np.where(here > end, (planned - end) / (here - end), left), 0.0, 1.0)
        # A weighted sum, because `end + (before - end) * share` loses digits if one rate is tiny.
        return np.where(is_planned, planned, before * share + end * (1.0 - share))

    def at(self, step: int) -> tuple[float, ...]:
        """The learning rate of each group at a step."""
        return tuple(self.rates(step, step + 1)[:, 0].tolist())

    def phase_at(self, step: int) -> tuple[str, int | None]:
        """The name of the phase at a step, and how many steps are left in it after this one; None if it has no end."""
        schedule, segment = self.schedule, self.schedule.segment_at(step)
        is_cooldown = self.cooldown is not None and step >= self.cooldown.step
        is_held = schedule.horizon is not None and step >= schedule.horizon
        ends = [] if is_held or segment.steps == OPEN else [segment.first + segment.steps]
        if schedule.num_training_steps is not None:
            ends.append(schedule.num_training_steps)
        left = max(min(ends) - 1 - step, 0) if ends else None
        return "cooldown" if is_cooldown else "hold" if is_held else segment.kind, left

    @cached_property
    def _peaks(self) -> Array:
        return np.array(self.peaks, dtype=np.float64)

    @cached_property
    def _floors(self) -> Array:
        return np.array([self._floor(number) for number in range(len(self.peaks))])

    def _floor(self, number: int) -> float:
        """The floor of a group; one with the peak 0 does not train, so `min_lr` does not apply to it."""
        return self.of_group(number).floor(self.peaks[number]) if self.peaks[number] else 0.0

    def of_group(self, number: int) -> Schedule:
        """The schedule that a group follows."""
        return (self.own[number] if self.own else None) or self.schedule

    def _planned(self, first: int, stop: int, groups: slice) -> Array:
        """The rates of the schedules, without a transition."""
        peaks, floors = self._peaks[groups], self._floors[groups]
        rates = self.schedule.rates(first, stop, peaks, floors)
        for row, own in enumerate(self.own[groups]):
            if own is not None:
                rates[row] = self._own_rates(own, first, stop, peaks[[row]], floors[[row]])[0]
        return rates

    def _own_rates(self, own: Schedule, first: int, stop: int, peaks: Array, floors: Array) -> Array:
        """The rates of a group with its own schedule: in a live cooldown, from the rate before it to the floor."""
        rates = own.rates(first, stop, peaks, floors)
        decay = self.schedule.segments[-1]
        if self.cooldown is None or stop <= decay.first:
            return rates
        before = own.rates(decay.first - 1, decay.first, peaks, floors)[:, 0]
        if self.cooldown.sets_floor:
            ratio, min_lr = self.schedule.floor_ratio, self.schedule.min_lr
            floors = ratio * peaks if min_lr is None else np.full_like(peaks, min_lr)
        cooled = Schedule((decay._replace(start=PEAK, end=FLOOR),))
        begin = max(first, decay.first)
        rates[:, begin - first :] = cooled.rates(begin, stop, before, np.minimum(before, floors))
        return rates

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint; `from_state` reads them."""
        transition = self.transition and {**vars(self.transition), "rates": list(self.transition.rates)}
        return {
            "schedule": str(self.schedule),
            "num_training_steps": self.schedule.num_training_steps,
            "base_lrs": list(self.peaks),
            "transition": transition,
            "cooldown": self.cooldown and vars(self.cooldown),
            "own": [own and str(own) for own in self.own],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> GroupSchedule:
        """Read what `state` returned."""
        transition, cooldown = state.get("transition"), state.get("cooldown")
        return cls(
            Schedule.parse(state["schedule"]).in_run(state["num_training_steps"]),
            tuple(state["base_lrs"]),
            ResumeTransition(**{**transition, "rates": tuple(transition["rates"])}) if transition else None,
            Cooldown(**cooldown) if cooldown else None,
            tuple(own and Schedule.parse(own) for own in state.get("own", ())),
        )
