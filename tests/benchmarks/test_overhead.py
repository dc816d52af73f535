"""The overhead benchmark runs real trainings in turns, and detects a slow callback or a different training."""

from __future__ import annotations

import math
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.common.intervals import Interval
from benchmarks.common.programs import BARE, RECIPE, Observed, run_in_turns
from benchmarks.common.task import RunFailed
from benchmarks.overhead import rounds, run
from benchmarks.overhead.rounds import ALL_ON, Workload, check_same_training, figures

STEPS = 6
TINY = Workload("sft", layers=1, width=16, batch=4, steps=STEPS)
SLOW = """
import runpy, time
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

class Slow(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass

DEFAULT_CALLBACKS.append(Slow)
runpy.run_path("recipes/sft.py", run_name="__main__")
"""


@pytest.mark.slow
def test_round_measures_each_program_and_shows_a_slow_callback(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    trainings = rounds.programs(TINY, tmp_path / "runs")
    (tmp_path / "slow.py").write_text(SLOW)
    slow = trainings[ALL_ON]
    trainings[ALL_ON] = replace(slow, words=(str(tmp_path / "slow.py"), *slow.words[1:]))
    observed = run_in_turns(trainings, random.Random(0))

    check_same_training(observed)
    assert list(observed) == [BARE, RECIPE, ALL_ON]
    for one in observed.values():
        assert len(one.steps) == len(one.logged("loss")) == STEPS
        assert 0 < sum(step.callbacks for step in one.steps) < sum(step.cpu for step in one.steps) < one.cpu
        assert 0 < sum(step.wall for step in one.steps) < one.wall
        assert one.peak_bytes > 100 * 2**20  # torch alone is more
    assert len(set(observed[BARE].logged("loss"))) > 1

    found = figures(observed)
    assert all(found[BARE][f"{measure}_ratio"] == 1 for measure in run.MEASURES)
    assert found[ALL_ON]["step_cpu"] > 0.1 + found[BARE]["step_cpu"] / 2
    for measure in ("step_cpu", "step_wall"):
        assert Interval.of_median([found[ALL_ON][f"{measure}_ratio"]] * 6).at_most(run.BOUNDS[ALL_ON]) == "MISSED"
    assert found[RECIPE]["step_cpu"] < found[ALL_ON]["step_cpu"] - 0.05
    assert found[RECIPE]["callbacks_cpu"] < 0.1 < found[ALL_ON]["callbacks_cpu"]


@pytest.mark.slow
def test_command_writes_table_and_raw_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(run.WORKLOADS, "grpo-real", replace(TINY, kind="grpo", batch=8))
    for name in ("HF_DATASETS_CACHE", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "1")  # and restored
    command = ["run.py", "--rounds", "2", "--only", "grpo-real", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    cores = os.sched_getaffinity(0)
    try:
        run.main()
    finally:
        os.sched_setaffinity(0, cores)
    page = capsys.readouterr().out
    assert "| grpo-real | a step, CPU time |" in page and "too few rounds to tell" in page
    assert page.endswith((tmp_path / "overhead.md").read_text(encoding="utf-8"))  # DeepSpeed may print before it
    (results,) = run.read(tmp_path / "overhead.csv").values()
    assert len(results) == 2 and set(results[1]) == {BARE, RECIPE, ALL_ON}


def made_up(loss=(3.0, 2.0), norm=(1.0, 1.0), weights="a", **given):
    logs = [{"step": n, "loss": one, "grad_norm": other} for n, (one, other) in enumerate(zip(loss, norm, strict=True))]
    defaults = {"wall": 9.0, "cpu": 9.0, "peak_bytes": 2**20, "record": {"marks": [], "logs": logs}}
    one = Observed(folder=Path(), **{**defaults, **given})
    one.__dict__["weights"] = weights  # as if read already
    return one


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made_up(loss=(3.0, 2.0000000000000004)), "`loss` differs"),
        (made_up(loss=(3.0,), norm=(1.0,)), "`loss` differs"),
        (made_up(norm=(1.0, 1.5)), "`grad_norm` differs"),
        (made_up(weights="b"), "the saved weights differ"),
    ],
)
def test_different_training_is_rejected(other, message):
    check_same_training({BARE: made_up(), RECIPE: made_up()})
    with pytest.raises(RunFailed, match=f"'recipe' is a different training than TRL's script: {message}"):
        check_same_training({BARE: made_up(), RECIPE: other})
    with pytest.raises(RunFailed, match="equal losses would prove nothing"):
        check_same_training({BARE: made_up(norm=(0.0, 0.0)), RECIPE: made_up(norm=(0.0, 0.0))})


def test_step_excludes_the_time_waited():
    # Each mark: reached at, resumed at; (wall, CPU, in callbacks).
    marks = [
        [[1.0, 1.0, 0.0], [5.0, 1.0, 0.0]],
        [[6.0, 1.5, 0.25], [9.0, 1.5, 0.25]],
        [[11.0, 3.5, 0.5], [12.0, 3.5, 0.5]],
    ]
    assert made_up(record={"marks": marks, "logs": []}).steps == [(1.0, 0.5, 0.25), (2.0, 2.0, 0.25)]


def test_ratios_are_medians_over_pairs_of_steps():
    def marks(*cpu_of_steps):
        ends = [sum(cpu_of_steps[:n]) for n in range(len(cpu_of_steps) + 1)]
        return {"marks": [[[end, end, end / 10], [end, end, end / 10]] for end in ends], "logs": []}

    bare = made_up(cpu=20.0, record=marks(9.0, 9.0, 1.0, 2.0, 4.0))
    ours = made_up(cpu=22.0, record=marks(5.0, 5.0, 1.5, 2.0, 40.0), peak_bytes=2**21)
    found = figures({BARE: bare, RECIPE: ours})[RECIPE]
    assert found["step_cpu_ratio"] == found["step_wall_ratio"] == 1.5  # of 1.5, 1 and 10; the first two warm up
    assert found["callbacks_cpu_ratio"] == pytest.approx(1.05)  # half a second more, a tenth of it in callbacks
    assert found["process_cpu_ratio"] == 1.1 and found["peak_mib_ratio"] == 2


def test_interval_of_a_median_uses_ranks():
    six = Interval.of_median([3, 1, 2, 6, 5, 4])
    assert (six.center, six.low, six.high) == (3.5, 1, 6)
    nine = Interval.of_median(range(9))
    assert (nine.center, nine.low, nine.high) == (4, 1, 7)
    assert math.isnan(Interval.of_median(range(5)).low)


@pytest.mark.parametrize(
    ("values", "most", "least"),
    [
        ([1.0] * 6, "met", "met"),
        ([0.9] * 6, "met", "MISSED"),
        ([1.1] * 6, "MISSED", "met"),
        ([0.9, 1.1] * 3, "not shown: too noisy", "not shown: too noisy"),
        ([0.5] * 5, "too few rounds to tell", "too few rounds to tell"),
    ],
)
def test_bound_is_met_only_if_the_whole_interval_says_so(values, most, least):
    assert (Interval.of_median(values).at_most(1.0), Interval.of_median(values).at_least(1.0)) == (most, least)
