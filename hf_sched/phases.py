"""Phases: the words that a schedule is written in.

    [warmup("5%"), hold(), decay("20%", shape="1-sqrt")]

A phase says how long it lasts and which level it goes to; where it starts follows from the phase before it. `Schedule`
lays a list of them on the steps of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from hf_sched import shapes
from hf_sched.arguments import DurationReader, Number, OneOf

Kind = Literal["warmup", "hold", "decay", "restart"]


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

    def __str__(self) -> str:
        if self == PEAK:
            return "peak"
        if self == FLOOR:
            return "floor"
        return f"{self.peak!r} + {self.floor!r} floor" if self.floor else f"{self.peak!r}"


PEAK = Level(peak=1.0)
FLOOR = Level(floor=1.0)


@dataclass(frozen=True)
class Phase:
    """A stretch of the run; made by `warmup`, `hold`, `decay` and `restart`."""

    kind: Kind
    duration: int | Fraction | None
    """Optimizer steps, a share of the run, or None for the rest of the run."""
    shape: str = "linear"
    start: Level | None = None
    """None: where the phase before ended, or the peak if there is none."""
    end: Level | None = None
    """None: as it started."""


def warmup(
    duration: int | float | str | Fraction,
    shape: str = "linear",
    *,
    start_ratio: float | None = 0.0,
    peak_ratio: float = 1.0,
) -> Phase:
    """Rise from `start_ratio` times the peak (None: from where the phase before ended) to `peak_ratio` times the peak.

    The last step of the phase trains at exactly its end level; no step trains at its start level.

    Args:
        duration: Steps (`500`) or a share of the run (`0.05`, `"5%"`).
        shape: `linear`, `cosine`, `sqrt`, `exponential` or `geometric`; `geometric` needs a start above 0.
    """
    start = None if start_ratio is None else Level(Number(0)("start_ratio", start_ratio))
    end = Level(Number(0)("peak_ratio", peak_ratio))
    OneOf(shapes.WARMUP_SHAPES)("shape", shape)
    if shape == "geometric" and (start is None or not 0 < start.peak < end.peak):
        raise ValueError(
            f"`start_ratio` must be above 0 and below the end for the shape 'geometric', received {start_ratio!r}"
        )
    return Phase("warmup", DurationReader()("duration", duration), shape, start, end)


def hold(duration: int | float | str | Fraction | None = None) -> Phase:
    """Stay where the phase before ended, or at the peak; `duration` None: for the rest of the run."""
    return Phase("hold", _duration_or_rest(duration))


def decay(
    duration: int | float | str | Fraction | None = None,
    shape: str = "linear",
    *,
    to: float | Level = FLOOR,
) -> Phase:
    """Fall from where the phase before ended (from the peak, if there is none) to the floor, on its last step exactly.

    Args:
        duration: Steps (`500`), a share of the run (`0.05`, `"5%"`), or None for the rest of the run.
        shape: `linear`, `cosine` or `1-sqrt`.
        to: The end level, as a share of the peak; the floor by default.
    """
    OneOf(shapes.DECAY_SHAPES)("shape", shape)
    return Phase("decay", _duration_or_rest(duration), shape, end=_level("to", to))


def restart(
    duration: int | float | str | Fraction | None = None,
    shape: str = "cosine",
    *,
    peak_ratio: float = 1.0,
    to: float | Level = FLOOR,
) -> Phase:
    """Jump to `peak_ratio` times the peak, which the first step trains at, and fall from there as `decay` does."""
    OneOf(shapes.DECAY_SHAPES)("shape", shape)
    start = Level(Number(0)("peak_ratio", peak_ratio))
    return Phase("restart", _duration_or_rest(duration), shape, start, _level("to", to))


def _duration_or_rest(duration: object) -> int | Fraction | None:
    return None if duration is None else DurationReader()("duration", duration)


def _level(name: str, value: float | Level) -> Level:
    return value if isinstance(value, Level) else Level(Number(0)(name, value))
