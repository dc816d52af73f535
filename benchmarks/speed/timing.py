"""Timing in interleaved rounds, and tables of the results."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.common.reporting import table


class Timing(NamedTuple):
    """The time of an operation in seconds."""

    median: float
    best: float
    """The fastest round, which other load on the machine affects least."""


def interleave(clocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Time everything once per round, in an order that is shuffled with a fixed seed for each round.

    Args:
        clocks: By name, functions that do the work and return the seconds it took.
        rounds: Number of rounds.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(rounds):
        for name in order.sample(list(clocks), len(clocks)):
            seconds[name].append(clocks[name]())
    return {name: Timing(statistics.median(taken), min(taken)) for name, taken in seconds.items()}


class Bound(NamedTuple):
    """A figure and the limit that it must keep."""

    what: str
    measured: float
    at_least: float = -float("inf")
    at_most: float = float("inf")

    @property
    def is_met(self) -> bool:
        """Whether the figure is within the limit."""
        return self.at_least <= self.measured <= self.at_most

    def row(self) -> list[str]:
        """Return the cells of its row."""
        limit = f"at least {self.at_least:g}" if self.at_least > 0 else f"at most {self.at_most:g}"
        return [self.what, limit, f"{self.measured:.3g}", "met" if self.is_met else "**missed**"]


@dataclass
class Section:
    """A table of timings with columns of rows, the bounds on them, and a remark."""

    title: str
    columns: dict[str, Mapping[str, Timing]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    remark: str = ""

    def __str__(self) -> str:
        names = list(next(iter(self.columns.values())))
        rows = [[name, *(_cell(timings, name) for timings in self.columns.values())] for name in names]
        return "\n".join([f"## {self.title}", "", *table(["", *self.columns], rows), "", self.remark]).rstrip()


def _cell(timings: Mapping[str, Timing], name: str) -> str:
    """Return the median, and the ratio of the fastest rounds to that of the first row."""
    if name not in timings:
        return ""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    unit = next((unit for unit, size in units.items() if timings[name].median >= size), "ns")
    first = next(iter(timings.values()))
    return f"{timings[name].median / units[unit]:.3g} {unit} ({timings[name].best / first.best:.3g}x)"
