"""The overhead benchmark runs real trainings in rounds, and rejects a different training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.common.programs import BARE, RECIPE, Observed
from benchmarks.common.task import RunFailed
from benchmarks.overhead import run
from benchmarks.overhead.run import ALL_ON, check_same_training, figures


@pytest.mark.slow
def test_round_measures_each_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "SIZE", {"layers": 1, "width": 16, "batch": 8, "steps": 6})
    for name in ("HF_DATASETS_CACHE", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "1")  # and restored
    monkeypatch.setattr(sys, "argv", ["run.py", "--rounds", "1", "--kinds", "grpo", "--output", str(tmp_path)])
    cores = os.sched_getaffinity(0)
    try:
        run.main()
    finally:
        os.sched_setaffinity(0, cores)
    assert "| grpo-real | a step, CPU time |" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "overhead.csv").set_index("program")
    assert list(found.index) == [BARE, RECIPE, ALL_ON]
    assert (found.loc[BARE, [f"{measure}_ratio" for measure in run.MEASURES]] == 1).all()
    assert (found["step_cpu"] > 0).all() and (found["step_cpu"] < found["process_cpu"]).all()
    assert (found["peak_mib"] > 100).all()  # torch alone is more


def made_up(loss=(3.0, 2.0), norm=(1.0, 1.0), weights="a", wall=9.0, **record):
    logs = [{"step": n, "loss": one, "grad_norm": other} for n, (one, other) in enumerate(zip(loss, norm, strict=True))]
    one = Observed(wall, {"cpu": 9.0, "peak_bytes": 2**20, "logs": logs, **record}, Path())
    one.__dict__["weights"] = weights  # as if read already
    return one


@pytest.mark.parametrize("other", [{"loss": (3.0, 2.0000000000000004)}, {"norm": (1.0, 1.5)}, {"weights": "b"}])
def test_different_training_is_rejected(other):
    check_same_training({BARE: made_up(), RECIPE: made_up()})
    with pytest.raises(RunFailed, match="'recipe' is a different training than TRL's script"):
        check_same_training({BARE: made_up(), RECIPE: made_up(**other)})
    with pytest.raises(RunFailed, match="equal losses would prove nothing"):
        check_same_training({BARE: made_up(norm=(0.0, 0.0)), RECIPE: made_up(norm=(0.0, 0.0))})


def test_ratios_are_medians_over_pairs_of_steps():
    def marks(*cpu_of_steps):
        return [[2 * sum(cpu_of_steps[:n]), sum(cpu_of_steps[:n])] for n in range(len(cpu_of_steps) + 1)]

    bare = made_up(cpu=20.0, marks=marks(9.0, 9.0, 1.0, 2.0, 4.0))
    ours = made_up(cpu=22.0, marks=marks(5.0, 5.0, 1.5, 2.0, 40.0), peak_bytes=2**21)
    found = figures({BARE: bare, RECIPE: ours})[RECIPE]
    assert found["step_cpu_ratio"] == found["step_wall_ratio"] == 1.5  # of 1.5, 1 and 10; the first two warm up
    assert (found["step_cpu"], found["step_wall"]) == (2.0, 4.0)
    assert found["process_cpu_ratio"] == 1.1 and found["peak_mib_ratio"] == 2
