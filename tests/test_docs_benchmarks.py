"""The tables of docs/benchmarks.md follow from its raw data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.learning import report
from benchmarks.learning.paired_seeds import compare
from benchmarks.overhead.run import overhead_table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
BASELINE = "linear"
# The differences that the page, `recommend` and the README report. They report no other.
SHOWN = {
    "sft": dict.fromkeys(("cosine", "constant_with_warmup", "warmup_cosine", "cosine_restarts"), "worse"),
    "pretraining": {
        **dict.fromkeys(("cosine_with_min_lr", "constant_with_warmup", "wsd"), "better"),
        "cosine": "worse",
    },
    "grpo": {},
}


@pytest.mark.parametrize(("task", "higher"), [("sft", False), ("pretraining", False), ("grpo", True)])
def test_tables_and_findings_of_a_task_follow_from_its_trainings(task: str, higher: bool):
    runs = pd.read_csv(DOCS / "benchmarks" / f"{task}.csv")
    values = report.values_of(runs)
    compared = compare(values, BASELINE, higher)
    for lines in (report.sweep_table(values, compared, BASELINE, higher), report.peak_table(values, higher)):
        assert "\n".join(lines) in PAGE
    assert runs["deviation"].max() < 1e-18  # every training had the planned learning rates
    verdicts = {name.partition(":")[0]: one.verdict for name, one in compared.items()}
    assert {name: verdict for name, verdict in verdicts.items() if verdict != "no difference shown"} == SHOWN[task]


def test_table_of_the_budgets_follows_from_its_trainings():
    runs = pd.read_csv(DOCS / "benchmarks" / "budgets.csv")
    assert "\n".join(report.budget_table(runs)) in PAGE
    assert runs["deviation"].max() < 1e-18


def test_table_of_the_overhead_follows_from_its_rounds():
    assert "\n".join(overhead_table(pd.read_csv(DOCS / "benchmarks" / "overhead.csv"))) in PAGE
