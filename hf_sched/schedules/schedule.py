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
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.phases import PEAK, Kind, Level, Phase
from hf_sched.schedules.shapes import Shape
from hf_sched.schedules.validation import Epochs, Number, Whole, as_steps, epochs_as_steps, round_half_up

Array = npt.NDArray[np.float64]

# A curve is worked out in blocks that stay in the processor's cache: twice as fast as all of it at once.
_BLOCK = 8192


@dataclass(frozen=True)
class Segment:
    """A phase laid on the steps of a run."""

    kind: Kind
    first: int
    """Its first optimizer step, counted from 0."""
    steps: int
    """How many optimizer steps it lasts, 1 or more."""
    shape: Shape
    start: Level
    end: Level
    jump: bool
    """Whether its first step trains at `start`, rather than one step on from it."""
    every: int = 1
    """How many steps each of its stairs lasts."""
    trust_coefficient: float | None = None
    """Of a warmup that scales each layer's learning rate by its trust ratio."""

    @property
    def rises(self) -> bool:
        """Whether it goes from its lower level to its upper one."""
        return self.kind == "warmup"

    def bounds(self, peaks: Array, floors: Array) -> tuple[Array, Array]:
        """Its lower and its upper level as learning rates, for groups with these peaks and floors."""
        start = self.start.peak * peaks + self.start.floor * floors
        end = self.end.peak * peaks + self.end.floor * floors
        return (start, end) if self.rises else (end, start)

    def heights(self, first: int, stop: int) -> Array:
        """Where between its levels each of the run's steps `first` to `stop - 1` is: 0 on the lower, 1 on the upper."""
        # Counted from the step at `start`, which is the last one before the segment where it does not jump.
        passed = np.arange(first - self.first + (not self.jump), stop - self.first + (not self.jump), dtype=np.float64)
        last = max(self.steps - self.jump, 1)
        if self.every > 1:
            passed = np.floor_divide(passed, self.every)
            last //= self.every
        u = passed / last if self.rises else (last - passed) / last
        return self.shape.height(u, rising=self.rises)


@dataclass(frozen=True, repr=False)
class Schedule:
    """The learning rate of a whole run, as a pure function of the step and a parameter group's peak.

    Usually made by `hf_sched.build` or `Schedule.parse`. Two schedules are equal if they are the same curve. Printed it
    is text in the phase language, which `Schedule.parse` reads back.

    Args:
        segments: The curve, without a gap, from step 0 on. `Schedule.from_phases` makes them from phases.
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
            if self.floor_ratio:
                raise ValueError(
                    "the floor is given twice: give either `floor_ratio` or `min_lr`, received "
                    f"{self.floor_ratio!r} and {self.min_lr!r}"
                )

    @classmethod
    def from_phases(
        cls,
        phases: Iterable[Phase],
        *,
        num_training_steps: int,
        floor_ratio: float = 0.0,
        min_lr: float | None = None,
        steps_per_epoch: float | None = None,
    ) -> Schedule:
        """Lay phases on a run of `num_training_steps` optimizer steps; `steps_per_epoch` is for those in epochs.

        Raises:
            ValueError: The phases do not add up to the run, warmups leave no step for anything else, one that should
                fall would rise or the other way round.
        """
        total = Whole(1)("num_training_steps", num_training_steps)
        phases = list(phases)
        for phase in phases:
            if not isinstance(phase, Phase):
                raise ValueError(f"`phases` must be phases (hf_sched.warmup, hold, decay, restart), received {phase!r}")
        floor_ratio = Number(0, 1)("floor_ratio", floor_ratio)
        segments = tuple(_lay(phases, total, steps_per_epoch, None if min_lr is not None else floor_ratio))
        schedule = cls(segments, floor_ratio, min_lr)
        if min_lr is None:  # with an absolute floor it depends on the group's peak
            schedule._check_directions(1.0)
        return schedule

    @classmethod
    def parse(
        cls, text: str, *, num_training_steps: int | None = None, steps_per_epoch: float | None = None
    ) -> Schedule:
        """Read a schedule written in the phase language (`hf_sched.schedules.phase_parser`), as `str(schedule)` writes it.

        Args:
            text: `"warmup 50 | decay 950 cosine; floor 0.1"`.
            num_training_steps: The optimizer steps of the run; None if every phase says its number of steps.
            steps_per_epoch: The optimizer steps of an epoch, for durations like `"1ep"`.

        Raises:
            ValueError: The text is none; the message points at the word that is wrong.
        """
        from hf_sched.schedules.phase_parser import parse  # it stands above this module

        spec = parse(text)
        if num_training_steps is None:
            steps = [phase.duration for phase in spec.phases]
            if not all(isinstance(n, int) for n in steps):
                raise ValueError(f"`num_training_steps` is needed where not every phase is in steps, received {text!r}")
            num_training_steps = sum(n for n in steps if isinstance(n, int))
        return cls.from_phases(
            spec.phases,
            num_training_steps=num_training_steps,
            floor_ratio=spec.floor_ratio or 0.0,
            min_lr=spec.min_lr,
            steps_per_epoch=steps_per_epoch,
        )

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
        if self.min_lr is not None and self.min_lr > peak:
            raise ValueError(
                f"`min_lr` must be at most the peak learning rate {peak!r}, received {self.min_lr!r}; "
                "`floor_ratio` sets a floor in proportion to the peak"
            )
        self._check_directions(peak)
        return self._floor(peak)

    def lr(self, step: int, *, peak: float) -> float:
        """The learning rate that optimizer step `step` (from 0) trains with, in a group whose peak is `peak`.

        From step `num_training_steps` on it is that of the last step.
        """
        step = min(Whole()("step", step), self.num_training_steps - 1)
        return float(self.rates(step, step + 1, *self._group(peak))[0, 0])

    def curve(self, *, peak: float) -> Array:
        """The learning rates of all steps, float64 of shape (num_training_steps,); bit for bit what `lr` gives."""
        curve: Array = self.rates(0, self.num_training_steps, *self._group(peak))[0]
        return curve

    def rates(self, first: int, stop: int, peaks: Array, floors: Array) -> Array:
        """The learning rates of steps `first` to `stop - 1`, past the end too, for groups of given peak and floor.

        Nothing is checked: this is what a scheduler calls as it goes.

        Args:
            first: The first optimizer step.
            stop: The one behind the last.
            peaks: The groups' peaks, float64 of shape (groups,).
            floors: Their floors (from `floor`), likewise.

        Returns:
            Array: float64 of shape (groups, stop - first).
        """
        last = self.num_training_steps - 1
        if stop > last + 1 and stop > first:
            inside = self.rates(min(first, last), last + 1, peaks, floors)
            padded: Array = np.pad(inside, ((0, 0), (0, stop - first - inside.shape[1])), mode="edge")
            return padded
        rates = np.empty((len(peaks), max(stop - first, 0)))
        for segment in self.segments[bisect_right(self._firsts, first) - 1 : bisect_right(self._firsts, stop - 1)]:
            low, high = segment.bounds(peaks[:, None], floors[:, None])
            # low + reach * height ends exactly on both levels: on the lower by itself, on the upper since the reach,
            # rounded up, gets there at least, and no further for the minimum.
            reach = high - low
            reach = np.where(low + reach < high, np.nextafter(reach, np.inf), reach)
            begin, behind = max(first, segment.first), min(stop, segment.first + segment.steps)
            for block in range(begin, behind, _BLOCK):
                end = min(block + _BLOCK, behind)
                piece = rates[:, block - first : end - first]
                np.multiply(reach, segment.heights(block, end), out=piece)
                piece += low
                np.minimum(piece, high, out=piece)
        return rates

    def __str__(self) -> str:
        from hf_sched.schedules.phase_parser import write

        return write(self)

    __repr__ = __str__

    @cached_property
    def _firsts(self) -> list[int]:
        return [segment.first for segment in self.segments]

    def _group(self, peak: float) -> tuple[Array, Array]:
        return np.array([peak], dtype=np.float64), np.array([self.floor(peak)])

    def _floor(self, peak: float) -> float:
        return self.floor_ratio * peak if self.min_lr is None else self.min_lr

    def _check_directions(self, peak: float) -> None:
        floor = self._floor(peak)
        for segment in self.segments:
            where = f"the {segment.kind} of {segment.steps} steps from step {segment.first} on"
            start, end = segment.start.at(peak, floor), segment.end.at(peak, floor)
            if not (math.isfinite(start) and math.isfinite(end)):
                raise ValueError(f"{where} leaves the range of numbers: {start!r} to {end!r}")
            if (start > end) if segment.rises else (start < end):
                which = f"`min_lr` {floor!r}" if self.min_lr is not None else f"`floor_ratio` {self.floor_ratio!r}"
                what = "rise, but would fall" if segment.rises else "fall, but would rise"
                raise ValueError(
                    f"{where} must {what} from {start!r} to {end!r} at a peak of {peak!r}: change its levels or the "
                    f"floor ({which})"
                )


def _lay(
    phases: list[Phase], total: int, steps_per_epoch: float | None, floor_ratio: float | None
) -> Iterable[Segment]:
    level: Level | None = None
    first = 0
    settled = [_without_epochs(phase, steps_per_epoch) for phase in phases]
    for number, (phase, steps) in enumerate(zip(settled, _settle_durations(settled, total), strict=True), 1):
        if steps == 0:
            continue
        before = level or (Level() if phase.kind == "warmup" else PEAK)
        start = phase.start or before
        jump = phase.kind == "restart" or (level is None and phase.kind != "warmup")
        if phase.kind == "decay" and level not in (None, start):
            raise ValueError(
                f"phase {number} (decay): `start` must be where the phase before ended ({level}), received {start}; a "
                "restart may start anywhere"
            )
        level = phase.end or start
        shape = phase.shape
        if shape.name == "geometric":
            shape = replace(shape, number=_rate_between(f"phase {number} ({phase.kind})", start, level, floor_ratio))
        every = as_steps(phase.every, total)
        if every > 1 and (steps - jump) // every == 0:
            raise ValueError(
                f"phase {number} ({phase.kind}): `every` must leave room for a stair in its {steps} steps, received "
                f"{every} steps"
            )
        yield Segment(phase.kind, first, steps, shape, start, level, jump, max(every, 1), phase.trust_coefficient)
        first += steps


def _without_epochs(phase: Phase, steps_per_epoch: float | None) -> Phase:
    if isinstance(phase.duration, Epochs):
        phase = replace(phase, duration=epochs_as_steps("duration", phase.duration, steps_per_epoch))
    if isinstance(phase.every, Epochs):
        phase = replace(phase, every=epochs_as_steps("every", phase.every, steps_per_epoch))
    return phase


def _rate_between(where: str, start: Level, end: Level, floor_ratio: float | None) -> float:
    """The logarithm of the ratio of two levels."""
    if floor_ratio is None and (start.floor or end.floor):
        raise ValueError(
            f"{where}: `shape` 'geometric' needs levels in proportion to the peak, which `min_lr` is not: give "
            "`floor_ratio`"
        )
    low, high = sorted(level.at(1.0, floor_ratio or 0.0) for level in (start, end))
    if not 0 < low < high:
        raise ValueError(
            f"{where}: `shape` 'geometric' needs levels above 0 that differ, received {start} and {end} (a floor is at "
            f"{floor_ratio or 0.0!r}): set `start` or the floor"
        )
    return math.log(high / low) if high / low < math.inf else math.log(high) - math.log(low)


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
    last = phases[-1].duration
    if total > 1 and steps[-1] == 0 and isinstance(last, Fraction) and last > 0:
        # The end of the curve is in the last phase: a share too small for a step is given one, not dropped. It comes
        # from the longest of those that did not ask for a number of steps.
        givers = [i for i, phase in enumerate(phases) if not isinstance(phase.duration, int) and steps[i]]
        if givers:
            steps[max(givers, key=steps.__getitem__)] -= 1
            steps[-1] = 1
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
            assert not isinstance(phase.duration, Epochs)  # they are steps by now
            whole += phase.duration or 0
        end = whole + round_half_up(share * total)  # which may be more than there are
        steps.append(end - done)
        done = end
    return steps
