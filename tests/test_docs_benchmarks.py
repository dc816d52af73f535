"""docs/benchmarks.md says what its raw data say: its tables are worked out again from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.learning import budgets_report
from benchmarks.learning import report as learning_report
from benchmarks.learning.comparison import compare

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
BASELINE = "linear"
# What the page's summary, `recommend` and the README say was shown; of everything else they say nothing.
SHOWN = {
    "sft": dict.fromkeys(("cosine", "constant_with_warmup", "warmup_cosine", "cosine_restarts"), "worse"),
    "pretraining": {
        **dict.fromkeys(("cosine_with_min_lr", "constant_with_warmup", "wsd"), "better"),
        "cosine": "worse",
    },
    "grpo": {},
}


@pytest.mark.parametrize(("task", "higher"), [("sft", False), ("pretraining", False), ("grpo", True)])
def test_the_table_of_a_task_is_that_of_its_trainings(task: str, higher: bool):
    outcomes = learning_report.read_csv(DOCS / "benchmarks" / f"{task}.csv")
    values = learning_report.values_of(outcomes)
    table = learning_report.table(values, compare(values, BASELINE, higher), BASELINE, higher)
    by_peak = learning_report.by_peak(values, higher)
    for lines in (table, by_peak):
        assert "\n".join(lines) in PAGE
    assert max(one.deviation for one in outcomes) < 1e-18  # every training had the rates it was requested


def test_the_table_of_the_budgets_is_that_of_its_trainings():
    outcomes = learning_report.read_csv(DOCS / "benchmarks" / "budgets.csv", more=budgets_report.MORE)
    assert "\n".join(budgets_report.table(outcomes)) in PAGE
    assert max(one.deviation for one in outcomes) < 1e-18


def test_what_is_said_to_be_shown_is_what_the_tests_show():
    """No more and no less."""
    shown = {}
    for task, higher in (("sft", False), ("pretraining", False), ("grpo", True)):
        values = learning_report.values_of(learning_report.read_csv(DOCS / "benchmarks" / f"{task}.csv"))
        compared = compare(values, BASELINE, higher)
        shown[task] = {name.partition(":")[0]: one.verdict for name, one in compared.items()}
    different = {
        task: {name: verdict for name, verdict in of_task.items() if verdict != "no difference shown"}
        for task, of_task in shown.items()
    }
    assert different == SHOWN
