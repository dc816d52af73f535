"""One training is really killed and resumed; what deviates is told from what does not by numbers made up here."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reliability import cases
from benchmarks.reliability import run as reliability
from benchmarks.reliability.cases import Row, deviation
from benchmarks.reliability.two_hosts import CannotRun

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_training_is_killed_and_resumed(tmp_path):
    output = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks.reliability.run", "--only", "kill-sft-1", "--trials", "1"]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = reliability.read(output)["kill-sft-1"]["rows"]
    assert (row["trials"], row["rate"], row["loss"]) == (1, 0.0, 0.0)
    assert "final weights the same, byte for byte: 1" in row["notes"]
    page = output.read_text(encoding="utf-8")
    assert "| SFT, one process, SIGKILL and resume | 1 | 1 | 0 | 0 | yes |" in page
    assert page.count("not run yet") == len(reliability.CASES) - 1


@pytest.mark.parametrize(
    ("found", "expected", "largest"),
    [
        ([0.1, 0.2], [0.1, 0.2], 0.0),
        ([0.1, 0.2, 0.5], [0.1, 0.25, 0.5], 0.05),
        ([0.3], [math.nextafter(0.3, 1)], math.ulp(0.3)),
        ([0.1], [0.1, 0.2], math.inf),
        ([], [], math.inf),
        ([0.1, math.nan], [0.1, 0.2], math.inf),
    ],
    ids=["equal", "one step", "one bit", "a step missing", "no steps at all", "no number"],
)
def test_the_largest_deviation_is_found(found, expected, largest):
    assert deviation(found, expected) == pytest.approx(largest, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("rate", "loss", "holds"),
    [(0.0, 0.0, True), (0.0, 1e-6, True), (0.0, 1e-4, False), (5e-324, 0.0, False), (0.0, math.inf, False)],
)
def test_a_deviation_is_reported_as_one(rate, loss, holds):
    row = Row("SFT, DDP", "2", 1, rate, loss, loss_bound=1e-5)
    assert row.holds == holds
    result = {"rows": [vars(row)], "date": "2026-01-01", "seconds": 60, "versions": {"Python": "3.11"}}
    page = reliability.report({"spread-sft-2": result})
    assert f"| {loss:.2g} | {'yes' if holds else '**no**'} |" in page


def test_a_case_that_cannot_run_says_why(tmp_path, monkeypatch):
    def refuse(_):
        raise CannotRun("network namespaces need root")

    for case in ("hosts-sft", "hosts-grpo"):
        monkeypatch.setitem(reliability.CASES, case, refuse)
    monkeypatch.setattr(reliability, "Workshop", lambda folder: None)
    monkeypatch.setattr(sys, "argv", ["reliability.py", "--only", "hosts", "--output", str(tmp_path / "page.md")])
    assert reliability.main() == 0
    assert "| not run: network namespaces need root |" in (tmp_path / "page.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("harm", ["missing", "cut off", "state cut off", None])
def test_a_half_written_checkpoint_is_known_by_its_files(tmp_path, harm):
    for name in ("sound", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "optimizer.pt").write_bytes(b"1234")
        (tmp_path / name / "trainer_state.json").write_text('{"step_time": 0.25}')
    other = tmp_path / "other"
    if harm == "missing":
        (other / "optimizer.pt").unlink()
    elif harm == "cut off":
        (other / "optimizer.pt").write_bytes(b"123")
    elif harm == "state cut off":
        (other / "trainer_state.json").write_text('{"step_time": 0.')
    assert cases.torn(other, tmp_path / "sound") == (harm is not None)
