"""The benchmark of `hf-sched sweep`: its searches, and its tables in docs/sweep.md."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.sweep import report
from benchmarks.sweep.train import PARTS, SEEDS, TASKS

DOCS = Path(__file__).parents[2] / "docs"


def made_up() -> pd.DataFrame:
    """Runs in which the second peak of every task is best, and short runs prefer higher peaks."""
    rows = []
    for task in TASKS:
        for number, peak in enumerate(task.peaks):
            for seed in SEEDS:
                for part in PARTS:
                    distance = number - 1 - math.log2(part) / 4
                    value = 0.5 + distance**2 / 10 + seed / 100 + part / 10
                    value = 2 - value if task.higher else value
                    rows.append([task.name, peak, seed, task.total // part, value])
    return pd.DataFrame(rows, columns=["task", "learning_rate", "seed", "steps", "value"])


def test_every_case_leaves_out_another_seed_and_begins_with_another():
    cases = report.cases(made_up())
    assert len(cases) == 15
    for task in TASKS:
        seeds = [case.seeds for case in cases if case.task == task]
        assert {each[0] for each in seeds} == set(SEEDS) and {frozenset(each) for each in seeds} == {
            frozenset(SEEDS) - {seed} for seed in SEEDS
        }


def test_found_means_within_one_standard_error_of_the_best():
    case = report.cases(made_up())[0]
    assert case.seeds == (1, 2, 3, 4) and case.is_found(2e-3) and not case.is_found(1e-3)
    assert case.mean(2e-3) == pytest.approx(0.5 + 0.025 + 0.1)


def test_searches_stay_within_the_budget():
    for case in report.cases(made_up())[::5]:
        for search in (report.sweep, report.random_search, report.optuna_defaults):
            peak, steps = search(case, 0)
            assert peak in case.task.peaks and 0 < steps <= report.BUDGET * case.grid_steps
        assert report.sweep(case)[0] == case.task.peaks[1]


@pytest.mark.parametrize("make", [pytest.param(report.search_table, marks=pytest.mark.slow), report.rank_table])
def test_tables_in_the_documentation_follow_from_the_runs(make):
    runs = pd.read_csv(DOCS / "benchmarks" / "sweep.csv")
    assert "\n".join(make(runs)) in (DOCS / "sweep.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["sft", "pretraining", "grpo"])
def test_continued_runs_equal_those_of_the_grid_to_the_last_digit(task):
    runs = pd.read_csv(DOCS / "benchmarks" / "sweep.csv")
    whole = runs[(runs["task"] == task) & (runs["steps"] == runs[runs["task"] == task]["steps"].max())]
    grid = pd.read_csv(DOCS / "benchmarks" / f"{task}.csv")
    grid = grid[grid["schedule"] == "wsd:decay=20%"].set_index(["learning_rate", "seed"])["value"]
    assert len(whole) == len(grid) >= 15
    assert dict(whole.set_index(["learning_rate", "seed"])["value"]) == dict(grid)
