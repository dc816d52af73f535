"""A schedule is a value: a curve of segments on whole steps, and the floor that they may end on.

Every schedule obeys these rules, for the optimizer steps `k = 0 ... N-1` of a run:

1. A warmup of W steps ends exactly at the peak on its last step, W - 1. No step trains at the level it starts from.
2. The last step, N - 1, trains exactly at the end level.
3. After the last step the end level is kept.
4. A segment that starts with a jump (a decay without a warmup before it, a restart) trains its first step exactly at
its start level.
5. A segment that starts with a jump and lasts a single step keeps its start level.

So step j of a segment of n steps has the progress `(j + 1) / n` if the segment continues from the previous step, and
`j / (n - 1)` if it starts with a jump.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.horizon import horizon_steps
from hf_sched.schedules.phase_parser import parse
from hf_sched.schedules.phases import PEAK, Kind, Level, Phase, ScheduleSpec
from hf_sched.schedules.shapes import Shape
from hf_sched.schedules.validation import (
    NO_UNITS,
    ArgumentError,
    Number,
    StepUnits,
    Whole,
    as_steps,
    require_length,
    round_half_up,
)

Array = npt.NDArray[np.float64]

OPEN = 2**60
"""The steps of a last `hold` in a run whose length is unknown: more than any run has."""

# A curve is computed in blocks that stay in the processor's cache, which is twice as fast as all of it at once.
_BLOCK = 8192


class Segment(NamedTuple):
    """A phase placed on the steps of a run."""

    kind: Kind
    first: int
    """The first optimizer step, counted from 0."""
    steps: int
    """How many optimizer steps it lasts, 1 or more."""
    shape: Shape
    start: Level
    end: Level
    jump: bool
    """Whether the first step trains at `start`, rather than one step past it."""
    every: int = 1
    """How many steps each stair lasts."""
    trust_coefficient: float | None = None
    """For a warmup that scales each layer's learning rate by its trust ratio."""

    @property
    def rises(self) -> bool:
        """Whether it goes from the lower level to the upper one."""
        return self.kind == "warmup"

    def bounds(self, peaks: Array, floors: Array) -> tuple[Array, Array]:
        """The lower and the upper level as learning rates, for groups with these peaks and floors."""
        start = self.start.peak * peaks + self.start.floor * floors
        end = self.end.peak * peaks + self.end.floor * floors
        return (start, end) if self.rises else (end, start)

    def fractions(self, first: int, stop: int) -> Array:
        """For the run's steps `first` to `stop - 1`, the fraction of the way from the lower level to the upper one."""
        # Counted from the step at `start`. Without a jump that is the last step before the segment.
        passed = np.arange(first - self.first + (not self.jump), stop - self.first + (not self.jump), dtype=np.float64)
        last = max(self.steps - self.jump, 1)
        if self.every > 1:
            passed = np.floor_divide(passed, self.every)
            last //= self.every
        return self.shape(passed / last if self.rises else (last - passed) / last, rising=self.rises)

    def as_phase(self, previous_end: Level | None) -> Phase:
        """The phase that gives this segment after a segment that ends at `previous_end`."""
        default = _default_start(self.kind, previous_end)
        start = None if self.start == default and self.kind != "restart" else self.start
        steps = None if self.steps == OPEN else self.steps
        return Phase(self.kind, steps, self.shape, start, self.end, self.every, self.trust_coefficient)


@dataclass(frozen=True, repr=False)
class Schedule:
    """The learning rate of a whole run, as a pure function of the step and a parameter group's peak.

    Create one with `hf_sched.build` or `Schedule.parse`. Two schedules are equal if their segments and floors are.
    `str(schedule)` is text in the phase language, which `Schedule.parse` reads back.

    Args:
        segments: The curve from step 0 on, without gaps. `Schedule.from_phases` creates them from phases.
        floor_ratio: The floor as a share of each group's peak, from 0 to 1.
        min_lr: The floor as a learning rate, the same in every group. It replaces `floor_ratio`.
        run_steps: The optimizer steps of the run, if the segments have another horizon; `OPEN` if they are unknown.

    Examples:
        >>> schedule = Schedule.parse("warmup 5% | decay cosine; floor 0.1", num_training_steps=100)
        >>> schedule
        warmup 5 | decay 95 cosine; floor 0.1
        >>> schedule.lr(0, peak=1e-3), schedule.lr(99, peak=1e-3)
        (0.0002, 0.0001)
    """

    segments: tuple[Segment, ...]
    floor_ratio: float = 0.0
    min_lr: float | None = None
    run_steps: int | None = field(default=None, compare=False)

    @classmethod
    def from_phases(
        cls,
        phases: Iterable[Phase],
        *,
        num_training_steps: int | None,
        floor_ratio: float | None = None,
        min_lr: float | None = None,
        **units: Any,
    ) -> Schedule:
        """Place phases, such as `[hf_sched.warmup("5%"), hf_sched.decay()]`, on the steps of a run.

        `units` are `steps_per_epoch`, `samples_per_step` and `tokens_per_step`, as in `hf_sched.build`; for the floors
        see `Schedule`.

        Raises:
            ArgumentError: The durations do not add up to the run, the run is all warmup, a phase goes the wrong way,
                or a floor is wrong or given twice.
        """
        spec = ScheduleSpec(tuple(phases), floor_ratio, min_lr)
        return cls.from_spec(spec, num_training_steps, StepUnits(**units))

    @classmethod
    def from_spec(cls, spec: ScheduleSpec, num_training_steps: int | None, units: StepUnits = NO_UNITS) -> Schedule:
        """Like `from_phases`, with the phases, their floor and their horizon in one value."""
        total = None if num_training_steps is None else Whole(1)("num_training_steps", num_training_steps)
        length = total if spec.horizon is None else horizon_steps(spec.horizon, total, units)
        floor_ratio = Number(0, 1)("floor_ratio", spec.floor_ratio or 0.0)
        min_lr = None if spec.min_lr is None else Number(0)("min_lr", spec.min_lr)
        segments = tuple(_place(spec.phases, length, units, floor_ratio if min_lr is None else None))
        schedule = cls(segments, floor_ratio, min_lr, OPEN if total is None else total)
        if min_lr is None:
            schedule._check_directions(1.0)  # an absolute floor is compared with each group's peak later
        return schedule

    @classmethod
    def parse(cls, text: str, *, num_training_steps: int | None = None, **units: Any) -> Schedule:
        """Read a schedule in the phase language (`hf_sched.GRAMMAR`), for example what `str(schedule)` returns.

        Args:
            text: `"warmup 50 | decay 950 cosine; floor 0.1"`.
            num_training_steps: The optimizer steps of the run. None if every phase has its number of steps, or if the
                number is unknown: then the text has a `horizon`, or ends with `hold`.
            **units: `steps_per_epoch`, `samples_per_step` and `tokens_per_step`, as in `hf_sched.build`.

        Raises:
            ArgumentError: The text does not parse. The message names the wrong word.
        """
        spec = parse(text)
        if num_training_steps is None and spec.horizon is None:
            steps = [phase.duration for phase in spec.phases if isinstance(phase.duration, int)]
            num_training_steps = sum(steps) if len(steps) == len(spec.phases) else None
        return cls.from_spec(spec, num_training_steps, StepUnits(**units))

    @cached_property
    def num_training_steps(self) -> int | None:
        """The optimizer steps of the run, N; None if they are unknown."""
        steps = self.horizon if self.run_steps is None else self.run_steps
        return None if steps is None or steps >= OPEN else steps

    @cached_property
    def horizon(self) -> int | None:
        """The optimizer steps that the segments take, after which the last level is kept; None if they have no end."""
        return None if self.segments[-1].steps == OPEN else self._stop

    @cached_property
    def _stop(self) -> int:
        return self.segments[-1].first + self.segments[-1].steps

    @property
    def segments_in_run(self) -> tuple[Segment, ...]:
        """The segments as far as the run goes."""
        total = self.num_training_steps or self._stop
        return tuple(
            one._replace(steps=min(one.steps, total - one.first)) for one in self.segments if one.first < total
        )

    def in_run(self, num_training_steps: int | None) -> Schedule:
        """The same curve in a run of another length; None for an unknown one."""
        return replace(self, run_steps=OPEN if num_training_steps is None else num_training_steps)

    def has_same_curve(self, other: Schedule) -> bool:
        """Whether both have the same learning rate at every step, also after their ends."""
        return replace(self, segments=_to_last_level(self)) == replace(other, segments=_to_last_level(other))

    def floor(self, peak: float) -> float:
        """The floor of a parameter group whose peak is `peak`.

        Raises:
            ArgumentError: The floor is above the peak, or above a level that the schedule decays from.
        """
        peak = Number(0)("peak", peak)
        if self.min_lr is not None and self.min_lr > peak:
            allowed = f"at most the peak learning rate {peak!r}"
            hint = "`floor_ratio` sets a floor in proportion to the peak"
            raise ArgumentError("min_lr", allowed, self.min_lr, hint)
        self._check_directions(peak)
        return self._floor(peak)

    def lr(self, step: int, *, peak: float) -> float:
        """The learning rate of optimizer step `step` (from 0) in a group whose peak is `peak`.

        After the last segment it is that of its last step.
        """
        step = min(Whole()("step", step), self._stop - 1)
        return float(self.rates(step, step + 1, *self._group(peak))[0, 0])

    def curve(self, steps: int | None = None, *, peak: float) -> Array:
        """The learning rates of all steps, float64 of shape (steps,), equal to `lr` bit for bit.

        `steps` are those of the run by default, and are required if its length is unknown.
        """
        total = self.num_training_steps if steps is None else Whole()("steps", steps)
        if total is None:
            raise ArgumentError("steps", rule="is required, because the length of the run is unknown")
        curve: Array = self.rates(0, total, *self._group(peak))[0]
        return curve

    def segment_at(self, step: int) -> Segment:
        """The segment that optimizer step `step` (from 0) is in; after their end, the last one."""
        return self.segments[bisect_right(self._firsts, step) - 1]

    def rates(self, first: int, stop: int, peaks: Array, floors: Array) -> Array:
        """The learning rates of steps `first` to `stop - 1` for several parameter groups, also after the last segment.

        The arguments are not checked: a scheduler calls this during training. `peaks` and `floors` (from `floor`) are
        float64 of shape (groups,), the result is float64 of shape (groups, stop - first).
        """
        last = self._stop - 1
        if stop > last + 1 and stop > first:
            inside = self.rates(min(first, last), last + 1, peaks, floors)
            padded: Array = np.pad(inside, ((0, 0), (0, stop - first - inside.shape[1])), mode="edge")
            return padded
        rates = np.empty((len(peaks), max(stop - first, 0)))
        for segment in self.segments[bisect_right(self._firsts, first) - 1 : bisect_right(self._firsts, stop - 1)]:
            low, high = segment.bounds(peaks[:, None], floors[:, None])
            # low + span * fraction must end exactly on both levels. It does on the lower one. On the upper one the
            # span, rounded up, reaches at least that level, and the minimum removes the excess.
            span = high - low
            span = np.where(low + span < high, np.nextafter(span, np.inf), span)
            segment_stop = min(stop, segment.first + segment.steps)
            for block in range(max(first, segment.first), segment_stop, _BLOCK):
                block_stop = min(block + _BLOCK, segment_stop)
                piece = rates[:, block - first : block_stop - first]
                np.multiply(span, segment.fractions(block, block_stop), out=piece)
                piece += low
                np.minimum(piece, high, out=piece)
        return rates

    def __str__(self) -> str:
        previous_ends: list[Level | None] = [None, *(segment.end for segment in self.segments)]
        phases = tuple(s.as_phase(end) for s, end in zip(self.segments, previous_ends, strict=False))
        is_of_run = self.horizon == self.num_training_steps
        return str(ScheduleSpec(phases, self.floor_ratio or None, self.min_lr, None if is_of_run else self.horizon))

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
            start, end = segment.start.at(peak, floor), segment.end.at(peak, floor)
            if start == end or (start < end) == segment.rises:
                continue
            is_floor = (segment.start.peak < segment.end.peak) == segment.rises
            name = "phases" if not is_floor else "floor_ratio" if self.min_lr is None else "min_lr"
            where = f"the {segment.kind} of {segment.steps} steps from step {segment.first} on"
            direction = f"{'falls' if segment.rises else 'rises'} from {start!r} to {end!r} at a peak of {peak!r}"
            rule = f"turns the curve the wrong way: {where} {direction}"
            raise ArgumentError(name, rule=rule, hint="change the levels or the floor")


def _to_last_level(schedule: Schedule) -> tuple[Segment, ...]:
    """The segments up to the one that reaches the last level, which is kept after it in any case."""
    segments = [*schedule.segments]
    while len(segments) > 1 and segments[-1].kind == "hold" and segments[-1].start == segments[-2].end:
        segments.pop()
    if segments[-1].kind == "hold":
        segments[-1] = segments[-1]._replace(steps=OPEN)
    return tuple(segments)


def _default_start(kind: Kind, previous_end: Level | None) -> Level:
    """Where a phase starts if it does not say so."""
    return previous_end or (Level() if kind == "warmup" else PEAK)


def _place(
    phases: Sequence[Phase], total: int | None, units: StepUnits, floor_ratio: float | None
) -> Iterator[Segment]:
    """The segments of phases over `total` steps; `floor_ratio` is None if the floor is a learning rate."""
    previous_end: Level | None = None
    first = 0
    durations = _durations_in_steps(phases, total, units)
    for number, (phase, steps) in enumerate(zip(phases, durations, strict=True), 1):
        if steps == 0:
            continue
        where = f"phase {number} ({phase.kind})"
        start = phase.start or _default_start(phase.kind, previous_end)
        end = phase.end or start
        if phase.kind == "decay" and previous_end not in (None, start):
            rule = f"is wrong in {where}: the previous phase ended at {previous_end}, and only a restart may jump"
            raise ArgumentError("start", received=str(start), rule=rule)
        jump = phase.kind == "restart" or (previous_end is None and phase.kind != "warmup")
        shape = phase.shape
        if shape.name == "geometric":
            shape = shape._replace(number=_log_ratio(where, start, end, floor_ratio))
        every = max(min(as_steps(phase.every, total, units, "every"), steps - jump), 1)
        yield Segment(phase.kind, first, steps, shape, start, end, jump, every, phase.trust_coefficient)
        previous_end = end
        first += steps


def _log_ratio(where: str, start: Level, end: Level, floor_ratio: float | None) -> float:
    """The logarithm of the ratio of two levels, the rate of a geometric phase."""
    if floor_ratio is None and (start.floor or end.floor):
        rule = f"'geometric' needs levels in proportion to the peak, which `min_lr` is not, in {where}"
        raise ArgumentError("shape", rule=rule, hint="give `floor_ratio`")
    low, high = sorted(level.at(1.0, floor_ratio or 0.0) for level in (start, end))
    if not 0 < low < high:
        rule = f"'geometric' needs levels above 0 that differ, in {where}"
        hint = f"set `start` or the floor, which is {floor_ratio or 0.0!r}"
        raise ArgumentError("shape", received=f"{start} to {end}", rule=rule, hint=hint)
    return math.log(high / low) if high / low < math.inf else math.log(high) - math.log(low)


def _durations_in_steps(phases: Sequence[Phase], total: int | None, units: StepUnits) -> list[int]:
    """The steps of each phase. Their sum is `total`, if it is known.

    Fractions are rounded where two phases meet, so that "50%" twice fills a run of 101 steps.
    """
    durations = [units.as_steps("duration", phase.duration) for phase in phases]
    if durations.count(None) > 1:
        raise ArgumentError("phases", rule=f"may omit one duration only, and {durations.count(None)} of them do")
    if total is None:
        if phases and phases[-1].kind == "hold" and durations[-1] is None:
            durations[-1] = OPEN
        for phase, duration in zip(phases, durations, strict=True):
            if not isinstance(duration, int):
                require_length(total, phase.kind, duration)
        total = sum(durations)
        if total == 0:
            raise ArgumentError("phases", rule="take no steps")
    split = durations.index(None) if None in durations else len(phases)
    steps = _rounded_where_they_meet(durations[:split], total)
    if split < len(phases):
        tail = _rounded_where_they_meet(durations[:split:-1], total)[::-1]
        steps = [*steps, max(total - sum(steps) - sum(tail), 0), *tail]
    if sum(steps) != total:
        fixed = [(p.kind, n) for p, n in zip(phases, steps, strict=True) if p.duration is not None]
        taken = f"{' + '.join(f'{kind} {n}' for kind, n in fixed) or 'nothing'} = {sum(steps)} steps"
        raise ArgumentError("phases", rule=f"take {taken}, but the run has {total} (`num_training_steps` or `horizon`)")
    if total > 1 and steps[-1] == 0 and isinstance(durations[-1], Fraction) and durations[-1] > 0:
        # The last phase brings the curve to its end, so even a fraction of a step gets one, from the longest phase.
        donor = max(range(len(steps)), key=lambda i: steps[i] if phases[i].kind != "warmup" else 0)
        steps[donor] -= 1
        steps[-1] += 1
    for phase, n in zip(phases, steps, strict=True):
        if phase.kind == "warmup" and n >= total:
            raise ArgumentError("warmup", f"shorter than the run of {total} steps", n)
    return steps


def _rounded_where_they_meet(durations: Sequence[int | Fraction | None], total: int) -> list[int]:
    steps: list[int] = []
    whole, fraction, done = 0, Fraction(0), 0
    for duration in durations:
        if isinstance(duration, Fraction):
            fraction += duration
        else:
            whole += duration or 0
        end = whole + round_half_up(fraction * total)  # may exceed `total`; the caller checks the sum
        steps.append(end - done)
        done = end
    return steps
