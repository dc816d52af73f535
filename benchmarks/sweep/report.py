"""Which peak each search names on each task and seed set, compared with the whole grid.

`runs` has a row for each training: task, learning_rate (the peak), seed, steps, value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

import optuna
import pandas as pd  # type: ignore[import-untyped]

from benchmarks.common.reporting import table
from benchmarks.sweep.train import PARTS, SEEDS, TASKS, Task
from hf_sched.finetune.sweep.grid import Point
from hf_sched.finetune.sweep.halving import Unit, cost, next_units, plan_rungs
from hf_sched.finetune.sweep.verdict import judge

BUDGET = 0.35
REPEATS = 20
"""Searches with chance are repeated, each time with another seed of the sampler."""


@dataclass(frozen=True)
class Case:
    """A task with four of its five seeds, in another order each."""

    task: Task
    seeds: tuple[int, ...]
    values: dict[Unit, float]

    @property
    def grid_steps(self) -> int:
        """The steps of the whole grid."""
        return len(self.task.peaks) * len(self.seeds) * self.task.total

    def mean(self, peak: float) -> float:
        """The mean of the grid at a peak."""
        return fmean(self.at(peak))

    def at(self, peak: float) -> list[float]:
        """The values of the grid at a peak."""
        return [self.values[Unit(Point(peak), seed, self.task.total)] for seed in self.seeds]

    def is_found(self, peak: float) -> bool:
        """Whether a peak is within one standard error of the best one of the grid."""
        best = (max if self.task.higher else min)(self.task.peaks, key=self.mean)
        return abs(self.mean(peak) - self.mean(best)) <= stdev(self.at(best)) / math.sqrt(len(self.seeds))


def cases(runs: pd.DataFrame) -> list[Case]:
    """Return five cases of each task: each leaves out a seed, and begins with the one after it."""
    found = []
    for task in TASKS:
        rows = runs[runs["task"] == task.name].itertuples()
        values = {Unit(Point(row.learning_rate), row.seed, row.steps): row.value for row in rows}
        for left_out in SEEDS:
            seeds = tuple((left_out + number) % len(SEEDS) for number in range(1, len(SEEDS)))
            found.append(Case(task, seeds, values))
    return found


def sweep(case: Case, _: int = 0) -> tuple[float, int]:
    """Search as `hf-sched sweep` does; return the peak and the steps."""
    task, results = case.task, dict[Unit, float]()
    rungs = plan_rungs(len(task.points), case.seeds, task.total, BUDGET, int(task.given["warmup_steps"]))
    while units := next_units(task.points, rungs, results, higher=task.higher)[1]:
        results |= {unit: case.values[unit] for unit in units}
    best = judge(task.points, rungs, results, task.metric, higher=task.higher).best
    assert best is not None
    return best.peak, cost(rungs)


def random_search(case: Case, repeat: int) -> tuple[float, int]:
    """Train random peaks in full, each with the next seed, until the budget is spent."""
    return _optuna(case, optuna.samplers.RandomSampler(seed=repeat), optuna.pruners.NopPruner(), (1,))


def optuna_defaults(case: Case, repeat: int) -> tuple[float, int]:
    """Search with Optuna's default sampler and pruner, which sees a value at each length."""
    return _optuna(case, optuna.samplers.TPESampler(seed=repeat), optuna.pruners.MedianPruner(), PARTS)


def _optuna(
    case: Case, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner, parts: Sequence[int]
) -> tuple[float, int]:
    task, steps, most = case.task, 0, BUDGET * case.grid_steps
    whole = sum(_chain(task, parts))
    study = optuna.create_study(sampler=sampler, pruner=pruner, direction="maximize" if task.higher else "minimize")
    while steps + whole <= most:
        trial = study.ask()
        point = Point(trial.suggest_categorical("learning_rate", task.peaks))
        seed, value, is_pruned = case.seeds[trial.number % len(case.seeds)], math.nan, False
        for part, trained in zip(parts, _chain(task, parts), strict=True):
            steps += trained
            value = case.values[Unit(point, seed, task.total // part)]
            trial.report(value, task.total // part)
            if is_pruned := part > 1 and trial.should_prune():
                break
        study.tell(trial, None if is_pruned else value, optuna.trial.TrialState.PRUNED if is_pruned else None)
    return float(study.best_params["learning_rate"]), steps


def _chain(task: Task, parts: Sequence[int]) -> list[int]:
    """The steps of the runs of a point and a seed, each of which continues the one before."""
    units = [Unit(Point(0.0), 0, task.total // part) for part in parts]
    return [units[0].steps, *(longer.steps - unit.hold for unit, longer in pairwise(units))]


SEARCHES: dict[str, tuple[Callable[[Case, int], tuple[float, int]], int]] = {
    "`hf-sched sweep`": (sweep, 1),
    "random search": (random_search, REPEATS),
    "Optuna's defaults: TPE, median pruner": (optuna_defaults, REPEATS),
}


def search_table(runs: pd.DataFrame) -> list[str]:
    """Return a row for each search: in how many cases it finds the best peak, and its share of the grid's steps."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for name, (search, repeats) in SEARCHES.items():
        found, shares = dict.fromkeys((task.name for task in TASKS), 0.0), []
        for case in cases(runs):
            answers = [search(case, repeat) for repeat in range(repeats)]
            found[case.task.name] += fmean(case.is_found(peak) for peak, _ in answers)
            shares.append(max(steps for _, steps in answers) / case.grid_steps)
        rows.append(
            [name, *(f"{each:.3g}" for each in found.values()), f"{sum(found.values()):.3g}", f"{max(shares):.1%}"]
        )
    return table(["search", *(f"{task.name}, of 5" for task in TASKS), "all, of 15", "steps, at most"], rows)


def rank_table(runs: pd.DataFrame) -> list[str]:
    """Return the mean at each peak and length over all seeds, the best of each length in bold."""
    rows = []
    for task in TASKS:
        means = runs[runs["task"] == task.name].pivot_table("value", "steps", "learning_rate")
        for steps, row in means.iterrows():
            best = row.idxmax() if task.higher else row.idxmin()
            cells = (
                f"**{peak:g}: {mean:.4g}**" if peak == best else f"{peak:g}: {mean:.4g}" for peak, mean in row.items()
            )
            rows.append([task.name, steps, ", ".join(cells)])
    return table(["task", "steps", "mean by peak"], rows)
