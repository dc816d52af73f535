"""Simulated runs end before their deadline, on the floor; the tables of the page follow from the raw data."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.deadline.run import runs_table, traces_table
from benchmarks.deadline.traces import KINDS, simulate

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_run_ends_in_time_on_the_floor(kind, tmp_path):
    for seed in (0, 1):
        ended = simulate(kind, seed, tmp_path)
        assert ended.is_on_floor and not ended.has_risen
        assert 0 <= ended.left <= 0.15 * ended.budget + ended.longest_step


def test_tables_follow_from_the_raw_data():
    page = (DOCS / "horizon.md").read_text(encoding="utf-8")
    traces, runs = (pd.read_csv(DOCS / "benchmarks" / f"deadline_{name}.csv") for name in ("traces", "runs"))
    assert "\n".join(traces_table(traces)) in page
    assert "\n".join(runs_table(runs)) in page
    assert len(traces) == 200 and len(runs) == 10
    assert traces["is_on_floor"].all() and not traces["has_risen"].any()
    assert runs["is_on_floor"].all() and runs["is_audited"].all()
