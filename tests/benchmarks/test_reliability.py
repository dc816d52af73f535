"""The reliability benchmark kills and resumes a real training, and recognizes deviations."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from benchmarks.common.task import ROOT
from benchmarks.reliability import cases, run
from benchmarks.reliability.cases import Row, deviation


@pytest.mark.slow
def test_training_is_killed_and_resumed(tmp_path):
    output = tmp_path / "page.md"
    output.write_text("Text by hand.\n")
    command = [sys.executable, "-m", "benchmarks.reliability.run", "--only", "kill-sft-1", "--trials", "1"]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = run.read(output)["kill-sft-1"]["rows"]
    assert (row["trials"], row["rate"], row["loss"]) == (1, 0.0, 0.0)
    assert "final weights the same, byte for byte: 1" in row["notes"]
    page = output.read_text(encoding="utf-8")
    assert page.startswith("Text by hand.")
    assert "| SFT, one process, SIGKILL and resume | 1 | 1 | 0 | 0 | yes |" in page


def test_largest_deviation():
    assert deviation([0.1, 0.2], [0.1, 0.2]) == 0
    assert deviation([0.1, 0.2, 0.5], [0.1, 0.25, 0.5]) == pytest.approx(0.05, rel=1e-12)
    assert deviation([0.3], [math.nextafter(0.3, 1)]) == math.ulp(0.3)
    for found, expected in (([0.1], [0.1, 0.2]), ([], []), ([0.1, math.nan], [0.1, 0.2])):
        assert deviation(found, expected) == math.inf


@pytest.mark.parametrize(
    ("rate", "loss", "holds"),
    [(0.0, 0.0, True), (0.0, 1e-6, True), (0.0, 1e-4, False), (5e-324, 0.0, False), (0.0, math.inf, False)],
)
def test_deviation_is_reported(rate, loss, holds):
    row = Row("SFT, DDP", 2, 1, rate, loss, loss_bound=1e-5)
    assert row.holds == holds
    result = {"rows": [vars(row)], "date": "2026-01-01", "seconds": 60, "versions": {"Python": "3.11"}}
    assert f"| {loss:.2g} | {'yes' if holds else '**no**'} |" in run.report({"spread-sft-2": result})


@pytest.mark.parametrize("damage", [None, ("optimizer.pt", "123"), ("trainer_state.json", '{"step_time": 0.')])
def test_half_written_checkpoint_is_recognized(tmp_path, damage):
    for name in ("whole", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "optimizer.pt").write_text("1234")
        (tmp_path / name / "trainer_state.json").write_text('{"step_time": 0.25}')
    if damage:
        (tmp_path / "other" / damage[0]).write_text(damage[1])
    assert cases.is_torn(tmp_path / "other", tmp_path / "whole") == (damage is not None)


def test_page_shows_the_stored_results():
    page = run.PAGE.read_text(encoding="utf-8")
    assert page.partition(run.MARKER)[2].strip() == run.report(run.read(run.PAGE))
