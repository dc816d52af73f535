"""A schedule is a value: a curve of segments on whole steps, and the floor that they may end on.

The rules that every schedule obeys, for optimizer steps `k = 0 ... N-1`:

1. A warmup of W steps ends on its last step, W - 1, at exactly the peak; no step trains at the level it starts from.
2. The last step, N - 1, trains at exactly the end level.
3. From then on the end level is held.
4. What starts with a jump (a decay with no warmup before it, a restart) trains its first step at exactly its start
level.
5. One that starts with a jump and lasts a single step keeps its start level.

So the progress of a segment of n steps at its step j is `(j + 1) / n` where it goes on from the step before it, and
`j / (n - 1)` where it starts with a jump.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hf_sched import shapes
from hf_sched.arguments import Number, Whole, as_steps
from hf_sched.phases import PEAK, Kind, Level, Phase


@dataclass(frozen=True)
class Segment:
    """A phase laid on the steps of a run."""

    kind: Kind
    first: int
    """Its first optimizer step, counted from 0."""
    steps: int
    """How many optimizer steps it lasts, 1 or more."""
    shape: str
    start: Level
    end: Level
    jump: bool
    """Whether its first step trains at `start`, rather than one step on from it."""

    def lr(self, step: shapes.X, peak: float, floor: float) -> shapes.X:
        """The learning rate at a step of the run within this segment, for a group with this peak and floor."""
        j = step - self.first
        progress = j / max(self.steps - 1, 1) if self.jump else (j + 1) / self.steps
        x = self._shape(progress)
        # This weighting is exact at both ends. Between them rounding could step an ulp outside, so the ends bound it.
        a = (1.0 - x) * self.start.peak + x * self.end.peak
        b = (1.0 - x) * self.start.floor + x * self.end.floor
        low, high = sorted((self.start.at(peak, floor), self.end.at(peak, floor)))
        bounded: shapes.X = np.minimum(np.maximum(a * peak + b * floor, low), high)
        return bounded

    @property
    def _shape(self) -> shapes.Shape:
        if self.shape == "geometric":
            return shapes.geometric(self.start.peak / self.end.peak)
        return shapes.BY_NAME[self.shape]

    def __str__(self) -> str:
        words = f"{self.kind} {self.steps}"
        if self.start != self.end:
            words += f" {self.shape} {self.start} -> {self.end}"
        return f"{words}, jump" if self.jump else words


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a whole run, as a pure function of the step and a parameter group's peak.

    Usually made by `hf_sched.build`. Two schedules are equal if they are the same curve.

    Args:
        segments: The curve, without a gap, from step 0 on. `Schedule.lay` makes them from phases.
        floor_ratio: The floor as a share of each group's peak, from 0 to 1.
        min_lr: The floor as a learning rate, the same in every group; instead of `floor_ratio`.
    """

    segments: tuple[Segment, ...]
    floor_ratio: float = 0.0
    min_lr: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "floor_ratio", Number(0, 1)("floor_ratio", self.floor_ratio))
        if self.min_lr is not None:
            object.__setattr__(self, "min_lr", Number(0)("min_lr", self.min_lr))

    @classmethod
    def lay(
        cls,
        phases: Iterable[Phase],
        *,
        num_training_steps: int,
        floor_ratio: float = 0.0,
        min_lr: float | None = None,
    ) -> Schedule:
        """Lay phases on a run of `num_training_steps` optimizer steps.

        Raises:
            ValueError: The phases do not add up to the run, warmups leave no step for anything else, or one that should
                fall
                would rise.
        """
        total = Whole(1)("num_training_steps", num_training_steps)
        phases = list(phases)
        for phase in phases:
            if not isinstance(phase, Phase):
                raise ValueError(f"`phases` must be phases (hf_sched.warmup, hold, decay, restart), received {phase!r}")
        schedule = cls(tuple(_lay(phases, total)), floor_ratio, min_lr)
        if min_lr is None:  # with an absolute floor it depends on the group's peak
            schedule._check_falls(1.0)
        return schedule

    @property
    def num_training_steps(self) -> int:
        """The optimizer steps of the run, N."""
        return self.segments[-1].first + self.segments[-1].steps

    def floor(self, peak: float) -> float:
        """The floor of a parameter group whose peak is `peak`.

        Raises:
            ValueError: The floor, or a level the schedule decays from, does not suit this peak.
        """
        peak = Number(0)("peak", peak)
        if self.min_lr is None:
            self._check_falls(peak)
            return self.floor_ratio * peak
        if self.min_lr > peak:
            raise ValueError(
                f"`min_lr` must be at most the peak learning rate {peak!r}, received {self.min_lr!r}; "
                "`floor_ratio` sets a floor in proportion to the peak"
            )
        self._check_falls(peak)
        return self.min_lr

    def lr(self, step: int, *, peak: float) -> float:
        """The learning rate that optimizer step `step` (from 0) trains with, in a group whose peak is `peak`.

        From step `num_training_steps` on it is that of the last step.
        """
        return self.value(Whole()("step", step), float(peak), self.floor(peak))

    def value(self, step: int, peak: float, floor: float) -> float:
        """As `lr`, with a floor worked out before and nothing checked: what a scheduler calls at every step."""
        step = min(step, self.num_training_steps - 1)
        segment = self.segments[bisect_right(self._firsts, step) - 1]
        return float(segment.lr(float(step), peak, floor))

    def curve(self, *, peak: float) -> npt.NDArray[np.float64]:
        """The learning rates of all steps, float64 of shape (num_training_steps,); bit for bit what `lr` gives."""
        floor = self.floor(peak)
        curve = np.empty(self.num_training_steps)
        for segment in self.segments:
            steps = np.arange(segment.first, segment.first + segment.steps, dtype=np.float64)
            curve[segment.first : segment.first + segment.steps] = segment.lr(steps, float(peak), floor)
        return curve

    def __str__(self) -> str:
        floor = f"floor {self.min_lr!r}" if self.min_lr is not None else f"floor {self.floor_ratio!r} * peak"
        return f"{' | '.join(map(str, self.segments))}; {floor}"

    @cached_property
    def _firsts(self) -> list[int]:
        return [segment.first for segment in self.segments]

    def _check_falls(self, peak: float) -> None:
        floor = self.floor_ratio * peak if self.min_lr is None else self.min_lr
        for number, segment in enumerate(self.segments, 1):
            start, end = segment.start.at(peak, floor), segment.end.at(peak, floor)
            if not (math.isfinite(start) and math.isfinite(end)):
                raise ValueError(f"phase {number} ({segment}) leaves the range of numbers: {start!r} to {end!r}")
            if segment.kind in ("decay", "restart") and start < end:
                which = f"`min_lr` {floor!r}" if self.min_lr is not None else f"`floor_ratio` {self.floor_ratio!r}"
                raise ValueError(
                    f"phase {number} ({segment}) must fall, but would rise from {start!r} to {end!r} at a peak of "
                    f"{peak!r}: lower the floor ({which}) or raise the level that the phase starts from"
                )


def _lay(phases: list[Phase], total: int) -> list[Segment]:
    segments: list[Segment] = []
    level: Level | None = None
    first = 0
    for phase, steps in zip(phases, _settle_durations(phases, total), strict=True):
        if steps == 0:
            continue
        start = phase.start or level or PEAK
        jump = phase.kind == "restart" or (level is None and phase.kind != "warmup")
        level = phase.end or start
        segments.append(Segment(phase.kind, first, steps, phase.shape, start, level, jump))
        first += steps
    return segments


def _settle_durations(phases: list[Phase], total: int) -> list[int]:
    """The steps of each phase; together they are `total`.

    Shares are rounded where phases meet, so that "50%" twice fills a run of 101 steps.
    """
    open_ended = [i for i, phase in enumerate(phases) if phase.duration is None]
    if len(open_ended) > 1:
        raise ValueError(f"only one phase may leave out its duration, received {len(open_ended)} that do")
    split = open_ended[0] if open_ended else len(phases)
    steps = _round_where_they_meet(phases[:split], total)
    if open_ended:
        tail = _round_where_they_meet(phases[:split:-1], total)[::-1]
        steps = [*steps, total - sum(steps) - sum(tail), *tail]
    if (open_ended and steps[split] < 0) or (not open_ended and sum(steps) != total):
        wanted = sum(steps) - (steps[split] if open_ended else 0)
        listed = " + ".join(
            f"{phase.kind} {n}" for phase, n in zip(phases, steps, strict=True) if phase.duration is not None
        )
        raise ValueError(
            f"the phases take {listed or 'nothing'} = {wanted} steps, but the run has `num_training_steps` = {total}"
        )
    for phase, n in zip(phases, steps, strict=True):
        if phase.kind == "warmup" and n >= total:
            raise ValueError(f"`warmup` must be shorter than the run of {total} steps, received {n} steps")
    return steps


def _round_where_they_meet(phases: list[Phase], total: int) -> list[int]:
    steps: list[int] = []
    whole, share, done = 0, Fraction(0), 0
    for phase in phases:
        if isinstance(phase.duration, Fraction):
            share += phase.duration
        else:
            whole += phase.duration or 0
        end = whole + as_steps(share, total)
        steps.append(end - done)
        done = end
    return steps
