"""Real trainings take turns; a callback that is slow on purpose shows, and so does a training that is another."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.common.intervals import Estimate
from benchmarks.common.programs import Observed, Program, run_alone, run_in_turns
from benchmarks.common.recipe_runs import RunFailed
from benchmarks.common.scripts import BARE, RECIPE
from benchmarks.overhead import run as overhead
from benchmarks.overhead.run import ALL_ON

STEPS = 6
TINY = overhead.Workload("sft", layers=1, width=16, batch=4, steps=STEPS, about="as small as can be")
SLOW = """
import runpy, sys, time
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


def test_a_round_tells_what_each_program_took_and_a_slow_callback_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    trainings = overhead.programs(TINY, tmp_path / "runs", overhead.make_task(TINY, tmp_path / "task"))
    (tmp_path / "slow.py").write_text(SLOW)
    words = trainings[ALL_ON].words
    trainings[ALL_ON] = replace(trainings[ALL_ON], words=(str(tmp_path / "slow.py"), *words[1:]))
    observed = run_in_turns(trainings, random.Random(0), environment=overhead.ENVIRONMENT)

    overhead.refuse_other_training(observed)
    assert list(observed) == [BARE, RECIPE, ALL_ON]
    bare = observed[BARE]
    for one in observed.values():
        assert len(one.steps) == len(one.logged("loss")) == STEPS
        assert 0 < sum(step.callbacks for step in one.steps) < sum(step.cpu for step in one.steps) < one.cpu
        assert 0 < sum(step.wall for step in one.steps) < one.wall
        assert one.peak_bytes > 100 * 2**20  # torch alone is more
    assert len(set(bare.logged("loss"))) > 1

    found = overhead.figures(observed)
    assert all(found[BARE][f"{measure}_ratio"] == 1 for measure in overhead.MEASURES)
    assert found[ALL_ON]["step_cpu"] > 0.1 + found[BARE]["step_cpu"] / 2
    for measure in ("step_cpu", "step_wall"):
        assert Estimate.of([found[ALL_ON][f"{measure}_ratio"]] * 6).at_most(overhead.BOUNDS[ALL_ON]) == "MISSED"
    assert found[RECIPE]["step_cpu"] < found[ALL_ON]["step_cpu"] - 0.05
    assert found[RECIPE]["callbacks_cpu"] < 0.1 < found[ALL_ON]["callbacks_cpu"]


@pytest.mark.slow
def test_the_command_writes_table_and_raw_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(overhead.WORKLOADS, "grpo-tiny", replace(TINY, kind="grpo", batch=8))
    output = tmp_path / "output"
    command = ["overhead.py", "--rounds", "1", "--only", "grpo-tiny", "--output", str(output)]
    monkeypatch.setenv("HF_DATASETS_CACHE", "")
    monkeypatch.setattr(sys, "argv", command)
    overhead.main()
    (first,) = json.loads((output / "overhead.json").read_text(encoding="utf-8"))["grpo-tiny"]["rounds"]
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [*command, "--add"])
    overhead.main()
    page = capsys.readouterr().out
    assert "| grpo-tiny | a step, CPU time |" in page and "too few rounds to tell" in page
    assert (output / "overhead.md").read_text(encoding="utf-8") == page
    result = json.loads((output / "overhead.json").read_text(encoding="utf-8"))["grpo-tiny"]
    assert len(result["rounds"]) == 2 and set(result["rounds"][1]) == {BARE, RECIPE, ALL_ON}
    assert result["rounds"][0] == first
    rows = (output / "overhead.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("training,round,program,step_cpu") and len(rows) == 1 + 2 * 3
    monkeypatch.setitem(overhead.WORKLOADS, "grpo-tiny", replace(TINY, kind="grpo", batch=8, steps=STEPS + 1))
    with pytest.raises(SystemExit, match=r"`--add` to grpo-tiny: its steps were 6, and are 7 now"):
        overhead.main()


def test_rounds_are_added_to_those_of_a_folder_only(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["overhead.py", "--add"])
    with pytest.raises(SystemExit, match="2"):
        overhead.main()
    assert "`--add` needs `--output`" in capsys.readouterr().err


def made_up(loss=(3.0, 2.0), norm=(1.0, 1.0), weights="a", **figures):
    logs = [{"step": n, "loss": one, "grad_norm": other} for n, (one, other) in enumerate(zip(loss, norm, strict=True))]
    given = {"wall": 9.0, "cpu": 9.0, "peak_bytes": 2**20, "record": {"marks": [], "logs": logs}, **figures}
    one = Observed(folder=Path(), **given)
    one.__dict__["weights"] = weights  # as if read already
    return one


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made_up(loss=(3.0, 2.0000000000000004)), "its `loss` differs"),
        (made_up(loss=(3.0,), norm=(1.0,)), "its `loss` differs"),
        (made_up(norm=(1.0, 1.5)), "its `grad_norm` differs"),
        (made_up(weights="b"), "the weights it saved differ"),
    ],
)
def test_another_training_is_refused(other, message):
    overhead.refuse_other_training({BARE: made_up(), RECIPE: made_up()})
    with pytest.raises(RunFailed, match=f"'recipe' is another training than the bare script: {message}"):
        overhead.refuse_other_training({BARE: made_up(), RECIPE: other})
    with pytest.raises(RunFailed, match="equal losses would show nothing"):
        overhead.refuse_other_training({BARE: made_up(norm=(0.0, 0.0)), RECIPE: made_up(norm=(0.0, 0.0))})


def test_a_step_reaches_from_its_beginning_to_the_next_without_the_time_waited():
    # Each mark: reached at, went on at; (wall, CPU, in callbacks).
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
    found = overhead.figures({BARE: bare, RECIPE: ours})[RECIPE]
    assert found["step_cpu_ratio"] == found["step_wall_ratio"] == 1.5  # of 1.5, 1 and 10; the first two warm up
    assert found["callbacks_cpu_ratio"] == pytest.approx(1.05)  # half a second more, a tenth of it in callbacks
    assert found["process_cpu_ratio"] == 1.1 and found["peak_mib_ratio"] == 2


def test_the_interval_of_a_median_goes_by_ranks():
    six = Estimate.of([3, 1, 2, 6, 5, 4])
    assert (six.median, six.low, six.high, six.level) == (3.5, 1, 6, 1 - 2 / 2**6)
    nine = Estimate.of(range(9))
    assert (nine.median, nine.low, nine.high) == (4, 1, 7) and nine.level == pytest.approx(1 - 2 * (1 + 9) / 2**9)
    assert Estimate.of(range(5)).level < 0.95 <= six.level


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
def test_a_bound_is_met_only_where_the_whole_interval_says_so(values, most, least):
    assert (Estimate.of(values).at_most(1.0), Estimate.of(values).at_least(1.0)) == (most, least)


def test_a_program_that_fails_is_told_with_its_last_words(tmp_path):
    (tmp_path / "fails.py").write_text("raise RuntimeError('no such luck')")
    with pytest.raises(RunFailed, match=r"ended with 1:(.|\n)*no such luck"):
        run_alone(Program((str(tmp_path / "fails.py"),), tmp_path / "out"), environment={})
