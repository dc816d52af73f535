"""The horizon: how many optimizer steps a schedule is laid out for, if that is not the length of the run."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import TypeAlias

from hf_sched.schedules.validation import (
    NO_UNITS,
    Amount,
    ArgumentError,
    DurationReader,
    Number,
    Reader,
    StepUnits,
    Whole,
    round_half_up,
)

Horizon: TypeAlias = int | Fraction | Amount
"""Optimizer steps, a multiple of the run's steps, or an amount of data."""


class HorizonReader(Reader):
    """Optimizer steps (`2000`), a multiple of the run's (`"1.5x"`, as a `Fraction`), or an `Amount` (`"2B tokens"`)."""

    allowed = "steps (2000), a multiple of the run (1.5x) or an amount of data (1ep, 9k samples, 5M tok), above 0"

    def __call__(self, name: str, value: object) -> Horizon:
        text = value.strip() if isinstance(value, str) else ""
        with suppress(ArgumentError):
            if isinstance(value, Fraction) or text.endswith("x"):
                return Fraction(repr(Number(0, above_low=True)(name, text[:-1] if text else value)))
            duration = DurationReader(above_zero=True)(name, value)
            if not isinstance(duration, Fraction):
                return duration
        raise ArgumentError(name, self.allowed, value)


def horizon_steps(horizon: Horizon, num_training_steps: int | None, units: StepUnits = NO_UNITS) -> int:
    """A horizon in optimizer steps, 1 or more."""
    if isinstance(horizon, Fraction):
        if num_training_steps is None:
            allowed = "in steps (2000), because the number of steps of the run is unknown"
            raise ArgumentError("horizon", allowed, horizon_text(horizon))
        return Whole(1)("horizon", max(round_half_up(horizon * num_training_steps), 1))
    steps: int = units.as_steps("horizon", horizon)
    return steps


def horizon_text(horizon: Horizon) -> str:
    """A horizon as users write it."""
    return f"{float(horizon)!r}x" if isinstance(horizon, Fraction) else str(horizon)
