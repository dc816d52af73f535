"""Successive halving: many points for few steps, the best of them for more, the last ones for the whole run.

Which runs come next is a pure function of the results so far. So all workers of a sweep agree, and a sweep that was
killed continues.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hf_sched.finetune.sweep.grid import Point
from hf_sched.schedules.validation import ArgumentError

COOLDOWN = 0.2
"""The share of each run, of whatever length, that decays. Results are only compared at the same length."""
FINALISTS = 2
FIRST = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64)
"""Fractions of the run for the first rung; those after the third only if the budget is too small for the others."""
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Unit:
    """One run: a point trained with a seed for a number of steps, the cooldown included."""

    point: Point
    seed: int
    steps: int

    @property
    def hold(self) -> int:
        """The steps before the cooldown: what a longer run of the point and the seed continues."""
        return self.steps - max(round(COOLDOWN * self.steps), 1)


@dataclass(frozen=True)
class Rung:
    """The best points so far, trained with some seeds for a number of steps."""

    steps: int
    points: int
    seeds: tuple[int, ...]


Results = Mapping[Unit, float]
"""The metric of each finished run; NaN if it diverged or failed."""


def plan_rungs(points: int, seeds: Sequence[int], total: int, budget: float, warmup: int = 0) -> tuple[Rung, ...]:
    """Return the rungs of a sweep, which cost at most a fraction of the steps of the full grid.

    The longer the first runs, the better they rank the peaks: short ones prefer peaks that are too high. So they take
    half of the run, or a quarter or an eighth if this gives the finalists three seeds, which an interval needs.

    Args:
        points: The number of points.
        seeds: The seeds, in the order in which they are used.
        total: The steps of a whole run.
        budget: The fraction.
        warmup: The steps of the warmup; every run has it in full, and holds the peak for a while.

    Raises:
        ArgumentError: The budget is too small.
    """
    most = round(budget * points * len(seeds) * total, 6)
    shortest = min(math.ceil((warmup + 2) / (1 - COOLDOWN)) + 1, total)
    plans = [_one_seed(points, seeds[:1], total, first, shortest) for first in FIRST]
    affordable = [_with_more_seeds(rungs, seeds, most) for rungs in plans if cost(rungs) <= most]
    if not affordable:
        least = math.ceil(100 * min(map(cost, plans)) / (points * len(seeds) * total))
        hint = "or give more seeds, or `max_steps` after `--`"
        raise ArgumentError("--budget", f"at least {least}% for {points} points", f"{budget:.0%}", hint)
    wanted = min(ENOUGH_SEEDS, len(seeds))
    return next((rungs for rungs in affordable[:3] if len(rungs[-1].seeds) >= wanted), affordable[0])


def _one_seed(points: int, seeds: Sequence[int], total: int, first: float, shortest: int) -> tuple[Rung, ...]:
    """Halve the points from rung to rung, while the length grows from a fraction of the run to all of it."""
    counts = [points]
    while counts[-1] > FINALISTS:
        counts.append(max(math.ceil(counts[-1] / 2), FINALISTS))
    lengths = [total]
    for left in range(1, len(counts)):
        lengths.insert(0, max(round(total * first ** (left / (len(counts) - 1))), shortest))
    most_at = dict(zip(lengths[::-1], counts[::-1], strict=True))  # of rungs with equal lengths, the first
    return tuple(Rung(steps, most_at[steps], tuple(seeds)) for steps in sorted(most_at))


def _with_more_seeds(rungs: tuple[Rung, ...], seeds: Sequence[int], most: float) -> tuple[Rung, ...]:
    """Spend the rest of the budget on more seeds, first for the finalists, then for the first rungs."""
    for number in range(len(rungs))[::-1]:
        for count in range(2, len(seeds) + 1):
            more = (*rungs[:number], Rung(rungs[number].steps, rungs[number].points, tuple(seeds[:count])))
            more += rungs[number + 1 :]
            if cost(more) <= most:
                rungs = more
    return rungs


def cost(rungs: Sequence[Rung]) -> int:
    """Return the optimizer steps of all rungs: a longer run continues the shorter one of its point and seed."""
    steps, trained = 0, dict[int, int]()
    for rung in rungs:
        for seed in rung.seeds:
            steps += rung.points * (rung.steps - trained.get(seed, 0))
            trained[seed] = Unit(Point(0.0), seed, rung.steps).hold
    return steps


def next_units(
    points: Sequence[Point], rungs: Sequence[Rung], results: Results, *, higher: bool
) -> tuple[int, list[Unit]]:
    """Return the number of the rung that is under way, and its runs without a result; none if the sweep is done."""
    left = list(points)
    for number, rung in enumerate(rungs):
        if number:
            left = best_points(left, rungs[number - 1], results, rung.points, higher=higher)
        units = [Unit(point, seed, rung.steps) for seed in rung.seeds for point in left]
        if missing := [unit for unit in units if unit not in results]:
            return number, missing
    return len(rungs), []


def best_points(points: Sequence[Point], rung: Rung, results: Results, most: int, *, higher: bool) -> list[Point]:
    """Return the points with the best means over the seeds of a rung; those that failed with a seed are excluded."""
    means = {point: fmean(results[Unit(point, seed, rung.steps)] for seed in rung.seeds) for point in points}
    finished = [point for point in points if not math.isnan(means[point])]
    return sorted(finished, key=lambda point: -means[point] if higher else means[point])[:most]
