"""Phases: the words that a schedule is written in.

    [warmup("5%"), hold(), decay("20%", "1-sqrt")]

A phase says how long it lasts and which level it goes to; where it starts follows from the phase before it. `Schedule`
lays a list of them on the steps of a run. `hf_sched.schedules.phase_parser` writes and reads the same as text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from hf_sched.schedules.shapes import DECAY_SHAPES, WARMUP_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import ArgumentError, DurationReader, Epochs, Number, Reader, did_you_mean

Kind = Literal["warmup", "hold", "decay", "restart"]
KINDS: tuple[Kind, ...] = ("warmup", "hold", "decay", "restart")

Lasting: TypeAlias = int | float | str | Fraction | Epochs
"""How long: steps (`500`), a share of the run (`0.05`, `"5%"`), or epochs (`"1ep"`)."""


@dataclass(frozen=True)
class Level:
    """The learning rate `peak * (a group's peak) + floor * (its floor)`; both factors are 0 or more."""

    peak: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", Number(0)("peak", self.peak))
        object.__setattr__(self, "floor", Number(0)("floor", self.floor))

    def at(self, peak: float, floor: float) -> float:
        """This level as a learning rate, for a parameter group with the given peak and floor."""
        return self.peak * peak + self.floor * floor

    def scaled(self, factor: float) -> Level:
        """This level with a multiple of the peak for the peak."""
        return Level(self.peak * factor, self.floor)

    def __str__(self) -> str:
        if self == PEAK:
            return "peak"
        if self == FLOOR:
            return "floor"
        share_of_floor = f"{self.floor!r} floor" if self.floor else ""
        return " + ".join(filter(None, [repr(self.peak) if self.peak or not self.floor else "", share_of_floor]))


PEAK = Level(peak=1.0)
FLOOR = Level(floor=1.0)
LINEAR = Shape("linear")


@dataclass(frozen=True)
class LevelReader(Reader):
    """A share of the peak (`0.1`), `peak`, `floor`, or a sum of both (`1.0 + 0.5 floor`)."""

    def __call__(self, name: str, value: object) -> Level:
        if isinstance(value, Level):
            return value
        if not isinstance(value, str):
            return Level(Number(0)(name, value))
        factors = {"peak": 0.0, "floor": 0.0}
        for term in value.split(" + "):
            words = term.split()
            of = words.pop() if words and words[-1] in factors else None
            try:
                (factor,) = words or ([] if of is None else ["1"])
                factors[of or "peak"] += Number(0)(name, factor)
            except ValueError:
                known = did_you_mean(words[-1], factors) if words else "."
                allowed = "a share of the peak (0.1), 0 or more, peak, floor, or a sum of them"
                raise ValueError(f"{ArgumentError(name, allowed, value)}{known}") from None
        return Level(**factors)


@dataclass(frozen=True)
class Phase:
    """A stretch of the run; made by `warmup`, `hold`, `decay` and `restart`."""

    kind: Kind
    duration: int | Fraction | Epochs | None
    """Optimizer steps, a share of the run, epochs, or None for the rest of the run."""
    shape: Shape = LINEAR
    start: Level | None = None
    """None: where the phase before ended. If there is none, a warmup starts from 0, anything else from the peak."""
    end: Level | None = None
    """None: as it started."""
    every: int | Fraction | Epochs = 1
    """How long each stair lasts, where it goes in stairs."""
    trust_coefficient: float | None = None
    """Of a warmup that scales each layer's learning rate by its trust ratio (see `hf_sched.scheduler.lars`)."""

    def scaled(self, factor: float) -> Phase:
        """This phase with a multiple of the peak for the peak."""
        start, end = (level and level.scaled(factor) for level in (self.start, self.end))
        return replace(self, start=start, end=end)

    def __str__(self) -> str:
        from hf_sched.schedules.phase_parser import write_phase  # it stands above this module

        return write_phase(self)


@dataclass(frozen=True)
class ScheduleSpec:
    """Phases and the floor they end on, not yet laid on a run; no floor is a floor of 0."""

    phases: tuple[Phase, ...]
    floor_ratio: float | None = None
    min_lr: float | None = None


def warmup(
    duration: Lasting,
    shape: str | Shape = "linear",
    *,
    start: float | str | Level | None = None,
    to: float | str | Level = PEAK,
    lars: float | None = None,
) -> Phase:
    """Rise to the peak, on the last step exactly; no step trains at the level that the phase starts from.

    Args:
        duration: Steps (`500`), a share of the run (`0.05`, `"5%"`) or epochs (`"1ep"`).
        shape: `linear`, `cosine`, `sqrt`, `exponential` (and a rate) or `geometric`, which needs a start above 0.
        start: The level to start from, as a share of the peak. None: 0 for the first phase, else where the phase before
            ended.
        to: The end level, as a share of the peak.
        lars: The trust coefficient, where each layer's learning rate is to be scaled by its trust ratio.
    """
    begin = None if start is None else LevelReader()("start", start)
    end = LevelReader()("to", to)
    return Phase(
        "warmup",
        DurationReader()("duration", duration),
        ShapeReader(WARMUP_SHAPES)("shape", shape),
        begin,
        end,
        trust_coefficient=None if lars is None else Number(0, above_low=True)("lars", lars),
    )


def hold(duration: Lasting | None = None, *, at: float | str | Level | None = None) -> Phase:
    """Stay where the phase before ended (at the peak, if there is none), or at a level of one's own.

    Args:
        duration: As in `warmup`; None for the rest of the run.
        at: The level, as a share of the peak.
    """
    return Phase("hold", _duration_or_rest(duration), start=None if at is None else LevelReader()("at", at))


def decay(
    duration: Lasting | None = None,
    shape: str | Shape = "linear",
    *,
    start: float | str | Level | None = None,
    to: float | str | Level = FLOOR,
    every: Lasting = 1,
) -> Phase:
    """Fall from where the phase before ended (from the peak, if there is none) to the floor, on its last step exactly.

    Args:
        duration: As in `warmup`; None for the rest of the run.
        shape: `linear`, `cosine`, `1-sqrt`, `polynomial` and its power, `exponential` (and a rate), `geometric`, `rex`,
            or `inverse_sqrt` and its length in time scales.
        start: The level to start from, if the phase is the first one; `restart` jumps to a level later on.
        to: The end level, as a share of the peak; the floor by default.
        every: The length of a stair: the curve then stands still, and falls once in so many steps.
    """
    return Phase(
        "decay",
        _duration_or_rest(duration),
        ShapeReader(DECAY_SHAPES)("shape", shape),
        None if start is None else LevelReader()("start", start),
        LevelReader()("to", to),
        DurationReader(above_zero=True)("every", every),
    )


def restart(
    duration: Lasting | None = None,
    shape: str | Shape = "cosine",
    *,
    start: float | str | Level = PEAK,
    to: float | str | Level = FLOOR,
) -> Phase:
    """Jump to `start` (a share of the peak), which the first step trains at, and fall from there as `decay` does."""
    return Phase(
        "restart",
        _duration_or_rest(duration),
        ShapeReader(DECAY_SHAPES)("shape", shape),
        LevelReader()("start", start),
        LevelReader()("to", to),
    )


def _duration_or_rest(duration: object) -> int | Fraction | Epochs | None:
    return None if duration is None else DurationReader()("duration", duration)
