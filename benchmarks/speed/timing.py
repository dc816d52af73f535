"""Timing in interleaved rounds, and tables of the results."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.common.reporting import table_head, table_row

REFERENCE = "hf_sched"


@dataclass(frozen=True)
class Timing:
    """The time of an operation in seconds, and relative to that of hf_sched."""

    median: float
    best: float
    """The fastest round, which other load on the machine affects least."""
    ratio: float
    """Fastest round divided by the fastest round of hf_sched."""

    def __str__(self) -> str:
        units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
        unit = next((unit for unit, size in units.items() if self.median >= size), "ns")
        return f"{self.median / units[unit]:.3g} {unit} ({self.ratio:.3g}x)"


def interleave(clocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Time everything once per round, in an order that is shuffled with a fixed seed for each round.

    Args:
        clocks: By name, functions that do the work and return the seconds it took; `REFERENCE` is one of the names.
        rounds: Number of rounds.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(rounds):
        for name in order.sample(list(clocks), len(clocks)):
            seconds[name].append(clocks[name]())
    best = {name: min(taken) for name, taken in seconds.items()}
    return {
        name: Timing(statistics.median(taken), best[name], best[name] / best[REFERENCE])
        for name, taken in seconds.items()
    }


@dataclass(frozen=True)
class Bound:
    """A figure and the limit that it must keep."""

    what: str
    measured: float
    at_least: float = -float("inf")
    at_most: float = float("inf")

    @property
    def is_met(self) -> bool:
        """Whether the figure is within the limit."""
        return self.at_least <= self.measured <= self.at_most

    def __str__(self) -> str:
        limit = f"at least {self.at_least:g}" if self.at_least > 0 else f"at most {self.at_most:g}"
        return table_row(self.what, limit, f"{self.measured:.3g}", "met" if self.is_met else "**missed**")


@dataclass
class Section:
    """A table of timings with columns of rows, the bounds on them, and remarks."""

    title: str
    columns: dict[str, Mapping[str, Timing]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = dict.fromkeys(row for timings in self.columns.values() for row in timings)
        lines = [f"## {self.title}", "", *table_head("", *self.columns)]
        for row in rows:
            lines.append(table_row(row, *(str(timings.get(row, "")) for timings in self.columns.values())))
        return "\n".join([*lines, *(f"\n{remark}" for remark in self.remarks)])
