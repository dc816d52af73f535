"""The points of a sweep: peak learning rates, combined with the values of other arguments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_sched.schedules.validation import ArgumentError, Number, Whole

FACTOR = 2
"""Between neighboring peaks of a range."""
PEAK = "learning_rate"
SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs")
"""Not compared: the runs of a sweep hold the peak, then cool down. The best configuration gets these values."""
# Arguments that the sweep sets itself, and what to use instead.
_OWN = {
    PEAK: "use `--learning-rates`",
    "seed": "use `--seeds`",
    "output_dir": "use `--output`",
    "max_steps": "it is the same for all points; write it after `--`",
    "num_train_epochs": "it is the same for all points; write it after `--`",
}
_RATE = Number(0, above_low=True, unit="a learning rate")


@dataclass(frozen=True)
class Point:
    """A peak and the values of the other swept arguments."""

    peak: float
    others: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return ", ".join([f"{self.peak:g}", *(f"{name}={value}" for name, value in self.others)])


def read_peaks(text: str) -> list[float]:
    """Read `LOW..HIGH` as LOW, 2 LOW, 4 LOW, ... up to HIGH, or a list `A,B,C`, in ascending order.

    Raises:
        ArgumentError: The text does not parse, or the range is empty.
    """
    low, dots, high = text.partition("..")
    if not dots:
        return sorted({_RATE("--learning-rates", part) for part in text.split(",")})
    first, last = _RATE("--learning-rates", low), _RATE("--learning-rates", high)
    if last < first:
        raise ArgumentError("--learning-rates", "LOW..HIGH with LOW below HIGH", text, "the range is empty")
    number = math.floor(math.log(last / first, FACTOR) + 1e-6) + 1
    return [float(f"{first * FACTOR**power:.6g}") for power in range(number)]


def read_seeds(text: str, first: int) -> tuple[int, ...]:
    """Read a number of seeds, counted from the first one, or a list `0,7,11`."""
    if "," in text:
        return tuple(dict.fromkeys(Whole()("--seeds", part) for part in text.split(",")))
    return tuple(range(first, first + Whole(1)("--seeds", text)))


def read_settings(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Read `NAME=VALUE,VALUE,...` as the values of each argument; a schedule has a single value.

    Raises:
        ArgumentError: A text does not parse, an argument is given twice, or the sweep sets it itself.
    """
    import yaml

    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, written = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        try:
            values = [written] if name == SCHEDULE[0] else yaml.safe_load(f"[{written}]")
        except yaml.YAMLError:
            values = None
        if not equals or not name or not values:
            raise ArgumentError("--set", "NAME=VALUE,VALUE,...", text)
        if name in _OWN:
            raise ArgumentError("--set", rule=f"cannot set `{name}`", received=text, hint=_OWN[name])
        if name in SCHEDULE and len(values) > 1:
            hint = "all runs of a sweep hold the peak and then cool down"
            raise ArgumentError("--set", rule=f"takes one value of `{name}`", received=text, hint=hint)
        if name in found:
            raise ArgumentError("--set", rule=f"has `{name}` twice", received=text, hint="list its values with commas")
        found[name] = values
    return found


def make_points(peaks: Sequence[float], settings: dict[str, list[Any]]) -> list[Point]:
    """Combine every peak with every combination of the other values.

    Raises:
        ArgumentError: There is only one point.
    """
    names = [name for name in settings if name not in SCHEDULE]
    combined = [tuple(zip(names, values, strict=True)) for values in itertools.product(*map(settings.get, names))]  # type: ignore[arg-type]
    points = [Point(peak, others) for others in combined for peak in peaks]
    if len(points) < 2:
        raise ArgumentError("--learning-rates", "two peaks or more, as in 1e-5..1e-3", peaks[0])
    return points
