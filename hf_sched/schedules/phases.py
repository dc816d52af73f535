"""Phases: the parts that a schedule is made of.

    [warmup("5%"), hold(), decay("20%", "1-sqrt")]

A phase says how long it lasts and which level it goes to. It starts where the previous phase ended.
`Schedule.from_phases` places a list of phases on the steps of a run. `str(phase)` is the phase in the phase language,
which `hf_sched.schedules.phase_parser` reads back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from hf_sched.schedules.horizon import Horizon, horizon_text
from hf_sched.schedules.shapes import DECAY_SHAPES, WARMUP_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import Amount, ArgumentError, Duration, DurationReader, Number, Reader

Kind = Literal["warmup", "hold", "decay", "restart"]
KINDS: tuple[Kind, ...] = ("warmup", "hold", "decay", "restart")


@dataclass(frozen=True)
class Level:
    """The learning rate `peak * (a group's peak) + floor * (its floor)`. Both factors are 0 or more.

    A level is a pair, so that one curve is right in every parameter group, whatever its peak.
    """

    peak: float = 0.0
    floor: float = 0.0

    def at(self, peak: float, floor: float) -> float:
        """The learning rate of this level in a parameter group with the given peak and floor."""
        return self.peak * peak + self.floor * floor

    def scaled(self, factor: float) -> Level:
        """This level with `factor * peak` in place of the peak."""
        return Level(self.peak * factor, self.floor)

    def __str__(self) -> str:
        if self in (PEAK, FLOOR):
            return "peak" if self == PEAK else "floor"
        if not self.floor:
            return repr(self.peak)
        return f"{self.peak!r} + {self.floor!r} floor" if self.peak else f"{self.floor!r} floor"


PEAK = Level(peak=1.0)
FLOOR = Level(floor=1.0)
LINEAR = Shape("linear")


class LevelReader(Reader):
    """A share of the peak (`0.1`), `peak`, `floor`, or a sum of both (`1.0 + 0.5 floor`)."""

    allowed = "a share of the peak (0.1), peak, floor, or a sum of them"

    def __call__(self, name: str, value: object) -> Level:
        if isinstance(value, Level):
            return value
        if not isinstance(value, str):
            return Level(Number(0)(name, value))
        factors = {"peak": 0.0, "floor": 0.0}
        for term in value.split(" + "):
            words = term.split()
            unit = words.pop() if words and words[-1] in factors else None
            try:
                (factor,) = words or ([] if unit is None else ["1"])
                factors[unit or "peak"] += Number(0)(name, factor)
            except ValueError:
                raise ArgumentError(name, self.allowed, value) from None
        return Level(**factors)


@dataclass(frozen=True)
class Phase:
    """One part of a schedule, created by `warmup`, `hold`, `decay` or `restart`."""

    kind: Kind
    duration: int | Fraction | Amount | None
    """Optimizer steps, a fraction of the run, an amount of data, or None for the rest of the run."""
    shape: Shape = LINEAR
    start: Level | None = None
    """None: where the previous phase ended. A first warmup then starts from 0, any other first phase from the peak."""
    end: Level | None = None
    """None: at its start."""
    every: int | Fraction | Amount = 1
    """The length of a stair, if the phase goes down in stairs."""
    trust_coefficient: float | None = None
    """For a warmup that scales each layer's learning rate by its trust ratio (see `hf_sched.scheduler.lars`)."""

    def scaled(self, factor: float) -> Phase:
        """This phase with `factor * peak` in place of the peak."""
        start, end = (level and level.scaled(factor) for level in (self.start, self.end))
        return replace(self, start=start, end=end)

    def __str__(self) -> str:
        """The phase in the phase language, without what is the default."""
        words: list[str] = [self.kind]
        if self.duration is not None:
            words.append(_duration_text(self.duration))
        if self.kind == "hold":
            return " ".join(words if self.start is None else [*words, f"at {self.start}"])
        if self.shape != Shape("cosine" if self.kind == "restart" else "linear"):
            words.append(str(self.shape))
        if self.start is not None and not (self.kind == "restart" and self.start == PEAK):
            words.append(f"from {self.start}")
        if self.end not in (None, PEAK if self.kind == "warmup" else FLOOR):
            words.append(f"to {self.end}")
        if self.every != 1:
            words.append(f"every {_duration_text(self.every)}")
        if self.trust_coefficient is not None:
            words.append(f"lars {self.trust_coefficient!r}")
        return " ".join(words)


@dataclass(frozen=True)
class ScheduleSpec:
    """Phases, their floor and their horizon, before they are placed on the steps of a run. Without a floor it is 0."""

    phases: tuple[Phase, ...]
    floor_ratio: float | None = None
    min_lr: float | None = None
    horizon: Horizon | None = None
    """None: that of the run."""

    def __post_init__(self) -> None:
        check_one_floor(self.floor_ratio, self.min_lr)

    def __str__(self) -> str:
        """The phases, their floor and their horizon in the phase language."""
        text = " | ".join(map(str, self.phases))
        if self.min_lr is not None:
            text += f"; min_lr {self.min_lr!r}"
        elif self.floor_ratio:
            text += f"; floor {self.floor_ratio!r}"
        return text if self.horizon is None else f"{text}; horizon {horizon_text(self.horizon)}"


def check_one_floor(floor_ratio: object, min_lr: object) -> None:
    """Raise an `ArgumentError` if both floors are given."""
    if floor_ratio is not None and min_lr is not None:
        rule = f"is a second floor beside `floor_ratio` {floor_ratio!r}"
        raise ArgumentError("min_lr", received=min_lr, hint="give one of them", rule=rule)


def warmup(
    duration: Duration,
    shape: str | Shape = "linear",
    *,
    start: float | str | Level | None = None,
    to: float | str | Level = PEAK,
    lars: float | None = None,
) -> Phase:
    """Rise to the peak, which the last step trains at. No step trains at the level that the phase starts from.

    Args:
        duration: Steps (`500`), a share of the run (`0.05`, `"5%"`), epochs (`"1ep"`), samples (`"9k samples"`) or
            tokens (`"5M tok"`).
        shape: `linear`, `cosine`, `sqrt`, `exponential` (and a rate) or `geometric`, which needs a start above 0.
        start: The level to start from, as a share of the peak. None: 0 for the first phase, otherwise where the
            previous phase ended.
        to: The end level, as a share of the peak.
        lars: The trust coefficient, to scale each layer's learning rate by its trust ratio.

    Raises:
        ArgumentError: An argument is wrong.
    """
    trust_coefficient = None if lars is None else Number(0, above_low=True)("lars", lars)
    phase = _moving("warmup", WARMUP_SHAPES, DurationReader()("duration", duration), shape, start, to)
    return replace(phase, trust_coefficient=trust_coefficient)


def hold(duration: Duration | None = None, *, at: float | str | Level | None = None) -> Phase:
    """Keep the learning rate at the end level of the previous phase (at the peak if there is none).

    Args:
        duration: As in `warmup`; None for the rest of the run.
        at: Another level, as a share of the peak.

    Raises:
        ArgumentError: An argument is wrong.
    """
    return Phase("hold", _duration_or_rest(duration), start=None if at is None else LevelReader()("at", at))


def decay(
    duration: Duration | None = None,
    shape: str | Shape = "linear",
    *,
    start: float | str | Level | None = None,
    to: float | str | Level = FLOOR,
    every: Duration = 1,
) -> Phase:
    """Fall from the end level of the previous phase (from the peak if there is none) to the floor.

    The last step trains exactly at the end level.

    Args:
        duration: As in `warmup`; None for the rest of the run.
        shape: `linear`, `cosine`, `1-sqrt`, `polynomial` and its power, `exponential` (and a rate), `geometric`, `rex`,
            or `inverse_sqrt` and its length in time scales.
        start: The level to start from, for a first phase. Use `restart` to jump to a level later.
        to: The end level, as a share of the peak; the floor by default.
        every: The length of a stair. The curve is then constant and falls once per stair.

    Raises:
        ArgumentError: An argument is wrong.
    """
    phase = _moving("decay", DECAY_SHAPES, duration, shape, start, to)
    return replace(phase, every=DurationReader(above_zero=True)("every", every))


def restart(
    duration: Duration | None = None,
    shape: str | Shape = "cosine",
    *,
    start: float | str | Level = PEAK,
    to: float | str | Level = FLOOR,
) -> Phase:
    """Jump to `start` (a share of the peak), which the first step trains at, and fall from there as `decay` does."""
    return _moving("restart", DECAY_SHAPES, duration, shape, LevelReader()("start", start), to)


def _moving(kind: Kind, shapes: tuple[str, ...], duration: object, shape: object, start: object, to: object) -> Phase:
    """A phase that moves from one level to another."""
    return Phase(
        kind,
        _duration_or_rest(duration),
        ShapeReader(shapes)("shape", shape),
        None if start is None else LevelReader()("start", start),
        LevelReader()("to", to),
    )


def _duration_or_rest(duration: object) -> int | Fraction | Amount | None:
    return None if duration is None else DurationReader()("duration", duration)


def _duration_text(duration: int | Fraction | Amount) -> str:
    return f"{float(duration * 100)!r}%" if isinstance(duration, Fraction) else str(duration)
