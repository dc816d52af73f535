"""Timing in interleaved rounds, and the sections and targets that the figures go into."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

REFERENCE = "hf_sched"


@dataclass(frozen=True)
class Timing:
    """How long something takes."""

    seconds: float
    """The median of the rounds."""
    ratio: float
    """How many times as long as hf_sched: the median of the rounds' own ratios, since noise hits both in a round."""

    def __str__(self) -> str:
        units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
        unit = next((unit for unit, size in units.items() if self.seconds >= size), "ns")
        return f"{self.seconds / units[unit]:.3g} {unit} ({self.ratio:.3g}x)"


def interleave(clocks: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Time everything once a round, in an order shuffled anew for each, with a fixed seed.

    Args:
        clocks: By name, what does the work and returns the seconds it took; `REFERENCE` is among the names.
        rounds: An odd number, so that each median is one of the rounds.
    """
    order = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(rounds):
        for name in order.sample(list(clocks), len(clocks)):
            taken[name].append(clocks[name]())
    ratios = {
        name: [mine / ours for mine, ours in zip(seconds, taken[REFERENCE], strict=True)]
        for name, seconds in taken.items()
    }
    return {name: Timing(statistics.median(taken[name]), statistics.median(ratios[name])) for name in clocks}


@dataclass(frozen=True)
class Target:
    """A figure that is wanted of hf_sched: at least, or at most, the bound."""

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is within its bounds; what is not a number never is."""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.measured <= high

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"


@dataclass
class Section:
    """A table of figures, the targets for them, and what a reader has to know."""

    title: str
    columns: dict[str, Mapping[str, Timing | int]] = field(default_factory=dict)
    """Figures by column and row."""
    row_notes: Mapping[str, str] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = dict.fromkeys(row for figures in self.columns.values() for row in figures)
        lines = [f"## {self.title}", "", *table_head("", *self.columns, "")]
        for row in rows:
            cells = (_cell(figures.get(row)) for figures in self.columns.values())
            lines.append(table_row(row, *cells, self.row_notes.get(row, "")))
        return "\n".join([*lines, *(f"\n{remark}" for remark in self.remarks)])


def table_head(*columns: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [table_row(*columns), table_row(*["---"] * len(columns))]


def table_row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cell(figure: Timing | int | None) -> str:
    if figure is None:
        return ""
    return f"{figure:,}" if isinstance(figure, int) else str(figure)
