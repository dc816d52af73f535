"""The search of a sweep: halving within a budget, shared and continued through a real Optuna storage."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hf_sched.finetune.sweep.grid import Point, make_points, read_peaks, read_seeds, read_settings
from hf_sched.finetune.sweep.halving import Rung, Unit, cost, next_units, plan_rungs
from hf_sched.finetune.sweep.trial import Outcome
from hf_sched.finetune.sweep.verdict import judge, write_best
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.sweeps import PEAKS, TOTAL, Formula, loss, recipe, worker

STORAGES = ("sweep.db", "sweep.journal")


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("points", [2, 3, 4, 7, 8, 13, 32])
@pytest.mark.parametrize("budget", [0.2, 0.35, 0.6, 1.0])
def test_steps_never_exceed_the_budget(points, seeds, budget):
    try:
        rungs = plan_rungs(points, range(seeds), TOTAL, budget, warmup=3)
    except ArgumentError as error:
        assert error.name == "--budget" and budget < 1
        return
    assert cost(rungs) <= round(budget * points * seeds * TOTAL, 6)
    assert rungs[0].points == points and rungs[-1].points == 2 and rungs[-1].steps == TOTAL
    # Each run holds the peak after the warmup, and the next one continues it.
    assert all(Unit(Point(1), 0, rung.steps).hold > 3 for rung in rungs)
    assert all(first.steps < second.steps for first, second in itertools.pairwise(rungs))


@pytest.mark.parametrize("storage", STORAGES)
def test_sweep_finds_the_best_peak_for_its_budget(storage, tmp_path):
    train = Formula()
    swept = worker(tmp_path / storage, train)
    results = swept.run()
    assert swept.trained == cost(swept.rungs) <= round(0.35 * len(PEAKS) * 3 * TOTAL, 6)
    assert set(train.units) == set(results) and len(train.units) == len(results)
    found = judge(swept.points, swept.rungs, results, "eval_loss", higher=False)
    assert found.best == Point(8e-4) and found.edge == ""
    # The finalists are compared over all seeds, which shift both of them alike.
    second = next(row for row in found.rows if row.steps == TOTAL and row.point != found.best)
    assert len(second.values) == 3 and second.interval and second.interval[0] > 0.05
    assert second.standing == "worse"
    swept.delete_checkpoints()
    assert not list(tmp_path.rglob("trial-*"))


def test_longer_run_continues_the_shorter_one_of_its_point_and_seed(tmp_path):
    continued = []

    def train(worker, trial, unit, checkpoint):
        continued.append((unit, checkpoint))
        return formula(worker, trial, unit, checkpoint)

    formula = Formula()
    worker(tmp_path / "sweep.journal", train, seeds=(0,), budget=0.6).run()
    by_unit = dict(continued)
    assert all((unit.steps == 25) == (checkpoint == "") for unit, checkpoint in by_unit.items())
    assert {unit.steps for unit in by_unit} == {25, 50, 100}


@pytest.mark.parametrize("storage", STORAGES)
def test_interrupted_sweep_continues_and_repeats_no_run(storage, tmp_path):
    first = Formula(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        worker(tmp_path / storage, first).run()
    second = Formula()
    results = worker(tmp_path / storage, second).run()
    assert len(first.units) == 5 and not {*first.units} & {*second.units}
    assert {*first.units, *second.units} == set(results)
    assert results == worker(tmp_path / "other.db", Formula()).run()


def test_earlier_results_in_the_storage_are_reused(tmp_path):
    train = Formula()
    results = worker(tmp_path / "sweep.journal", train, peaks=PEAKS[2:], seeds=(0,), budget=0.6).run()
    trained = len(train.units)
    assert worker(tmp_path / "sweep.journal", train, peaks=PEAKS[2:], seeds=(0,), budget=0.6).run() == results
    assert len(train.units) == trained
    # A wider range has rungs of the same lengths.
    worker(tmp_path / "sweep.journal", train, peaks=PEAKS, seeds=(0,), budget=0.6).run()
    assert {PEAKS[0], PEAKS[1]} <= {unit.point.peak for unit in train.units[trained:]}
    assert len(set(train.units)) == len(train.units)


def test_runs_of_another_configuration_are_not_reused():
    unit = Unit(Point(1e-3), 0, 50)
    key = recipe().trunk_key(unit)
    changed = {**recipe().given, "weight_decay": 0.1}
    assert recipe(given=changed).trunk_key(unit) != key
    assert recipe(given={**recipe().given, "logging_steps": 5}).trunk_key(unit) == key
    assert recipe(warmup=5).trunk_key(unit) != key and recipe(processes=2).trunk_key(unit) != key
    assert recipe(total=500).trunk_key(unit) == key
    assert recipe().trunk_key(Unit(Point(1e-3, (("lora_r", 8),)), 0, 50)) != key
    assert recipe().trunk_key(Unit(Point(1e-3), 1, 50)) != key


def _work(storage: Path) -> None:
    worker(storage, Formula(seconds=0.2)).run()


@pytest.mark.parametrize("storage", STORAGES)
def test_two_workers_share_the_runs_and_agree(storage, tmp_path):
    alone = worker(tmp_path / "alone.db", Formula()).run()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_work, args=(tmp_path / storage,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    late = Formula()
    swept = worker(tmp_path / storage, late)
    assert swept.run() == alone and not late.units
    finished = [trial for trial in swept.study.get_trials() if trial.state == TrialState.COMPLETE]
    assert len(finished) == len(alone)  # no run twice
    of_each = [sum(trial.user_attrs["pid"] == process.pid for trial in finished) for process in processes]
    assert min(of_each) >= len(alone) // 4


_DIES = """
import os, sys
from pathlib import Path
from tests.helpers.sweeps import worker
worker(Path(sys.argv[1]), lambda *_: os._exit(9)).run()
"""


@pytest.mark.parametrize("storage", STORAGES)
def test_run_of_a_dead_worker_is_taken_over(storage, tmp_path):
    died = subprocess.run([sys.executable, "-c", _DIES, str(tmp_path / storage)], timeout=120, check=False)
    assert died.returncode == 9
    train = Formula()
    swept = worker(tmp_path / storage, train)
    assert [trial.state for trial in swept.study.get_trials()] == [TrialState.RUNNING]
    assert set(swept.run()) == set(train.units)


def test_run_of_a_silent_worker_on_another_machine_is_taken_over(tmp_path, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(worker, trial, unit, checkpoint):
        trial.set_user_attr("host", "elsewhere")
        raise Stopped

    silent = worker(tmp_path / "sweep.journal", stop)
    monkeypatch.setattr(silent.study, "tell", lambda *_, **__: None)  # it has lost the connection
    with pytest.raises(Stopped):
        silent.run()
    train = Formula()
    swept = worker(tmp_path / "sweep.journal", train, dead_after=0.5)
    assert set(swept.run()) == set(train.units)
    states = [trial.state for trial in swept.study.get_trials()]
    assert states[0] == TrialState.FAIL and TrialState.RUNNING not in states


def test_worker_that_lost_its_run_continues_with_others(tmp_path, caplog):
    formula = Formula()

    def slow(worker, trial, unit, checkpoint):
        if trial.number == 0:
            worker.study.tell(trial.number, state=TrialState.FAIL)  # by another worker, which takes it for dead
        return formula(worker, trial, unit, checkpoint)

    results = worker(tmp_path / "sweep.journal", slow).run()
    assert formula.units.count(formula.units[0]) == 2 and set(formula.units) == set(results)
    assert "taken over by another worker" in caplog.text


def test_diverged_peaks_are_dropped_at_once(tmp_path):
    train = Formula(lambda unit: math.nan if unit.point.peak > 1e-3 else loss(unit))
    swept = worker(tmp_path / "sweep.journal", train)
    results = swept.run()
    assert {unit.steps for unit in train.units if unit.point.peak > 1e-3} == {swept.rungs[0].steps}
    found = judge(swept.points, swept.rungs, results, "eval_loss", higher=False)
    assert found.best == Point(8e-4)
    assert {row.standing for row in found.rows if row.point.peak > 1e-3} == {"failed"}
    assert all("diverged" in text for text in swept.errors().values())


def test_run_that_fails_twice_loses_only_itself(tmp_path):
    formula = Formula()

    def train(worker, trial, unit, checkpoint):
        if unit.point.peak == PEAKS[0]:
            formula.units.append(unit)
            return Outcome(None, "exit status 1: OutOfMemoryError: 80 GiB")
        return formula(worker, trial, unit, checkpoint)

    swept = worker(tmp_path / "sweep.journal", train)
    results = swept.run()
    failed = Unit(Point(PEAKS[0]), 0, swept.rungs[0].steps)
    assert formula.units.count(failed) == 2 and math.isnan(results[failed])
    assert judge(swept.points, swept.rungs, results, "eval_loss", higher=False).best == Point(8e-4)
    assert swept.errors() == {failed: "exit status 1: OutOfMemoryError: 80 GiB"}


def judged(best: float, higher: bool = False, **run):
    points = [Point(peak) for peak in PEAKS]
    rungs = plan_rungs(len(points), (0, 1, 2), TOTAL, 0.35)
    results = {}
    sign = -1 if higher else 1
    while units := next_units(points, rungs, results, higher=higher)[1]:
        results |= {unit: sign * loss(unit, best) for unit in units}
    return judge(points, rungs, results, "eval_loss", higher=higher)


@pytest.mark.parametrize("higher", [False, True])
def test_best_peak_at_an_edge_says_how_to_extend_the_range(higher):
    low, high = judged(1e-5, higher), judged(1.0, higher)
    assert (low.best, low.edge) == (Point(PEAKS[0]), "lowest")
    assert (high.best, high.edge) == (Point(PEAKS[-1]), "highest")
    assert "--learning-rates 1.25e-05..0.0002" in low.sentences()[-1]
    assert "--learning-rates 0.0064..0.1024" in high.sentences()[-1]
    assert judged(8e-4, higher).edge == "" and "too narrow" not in " ".join(judged(8e-4, higher).sentences())


def test_points_that_seeds_cannot_tell_apart_are_named():
    points = [Point(1e-3), Point(2e-3)]
    rungs = [Rung(TOTAL, 2, (0, 1, 2))]
    values = {0: (1.0, 1.1), 1: (1.2, 1.15), 2: (1.1, 1.12)}
    results = {Unit(point, seed, TOTAL): pair[n] for seed, pair in values.items() for n, point in enumerate(points)}
    found = judge(points, rungs, results, "eval_loss", higher=False)
    assert found.best == points[0] and found.rows[1].standing == "not distinguishable"
    assert "Not distinguishable from it: 0.002." in found.sentences()
    # Differences 0.1, -0.05, 0.02: mean 0.0233, standard deviation 0.0751, t(2) = 4.303.
    assert found.rows[1].interval == pytest.approx((0.02333 - 0.18649, 0.02333 + 0.18649), abs=1e-4)


def test_every_point_failed():
    points = [Point(1e-3), Point(2e-3)]
    rungs = [Rung(TOTAL, 2, (0,))]
    found = judge(points, rungs, {Unit(point, 0, TOTAL): math.nan for point in points}, "eval_loss", higher=False)
    assert found.best is None and "Try lower peaks" in found.sentences()[0]


def test_best_configuration_is_ready_to_run(tmp_path):
    given = {"config": "my.yaml", "learning_rate": 1e-3, "lr_scheduler_type": "linear", "max_steps": 10}
    write_best(Point(4e-4, (("lora_r", 8),)), given, {"lr_scheduler_type": "wsd"}, tmp_path / "best.yaml", "found")
    text = (tmp_path / "best.yaml").read_text()
    assert text == "# found\nlearning_rate: 0.0004\nlr_scheduler_type: wsd\nmax_steps: 10\nlora_r: 8\n"


def test_range_of_peaks_is_a_grid_of_factor_two():
    assert read_peaks("1e-5..1e-4") == [1e-5, 2e-5, 4e-5, 8e-5]
    assert read_peaks("1e-4..8e-4") == [1e-4, 2e-4, 4e-4, 8e-4]
    assert read_peaks("3e-4,1e-4") == [1e-4, 3e-4]
    assert read_seeds("3", 42) == (42, 43, 44) and read_seeds("7,1", 42) == (7, 1)
    settings = read_settings(["lora-r=8,16", "use_rslora=true", "lr_scheduler_type=wsd:decay=20%,floor_ratio=0.1"])
    assert settings == {"lora_r": [8, 16], "use_rslora": [True], "lr_scheduler_type": ["wsd:decay=20%,floor_ratio=0.1"]}
    points = make_points([1e-4, 2e-4], settings)
    assert len(points) == 4 and str(points[-1]) == "0.0002, lora_r=16, use_rslora=True"


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (read_peaks, "1e-3..1e-4", "the range is empty"),
        (read_peaks, "1e-3..", "must be a learning rate"),
        (read_peaks, "0,1e-3", "must be a learning rate"),
        (read_settings, ["lora_r"], "must be NAME=VALUE"),
        (read_settings, ["lora_r="], "must be NAME=VALUE"),
        (read_settings, ["learning_rate=1"], "use `--learning-rates`"),
        (read_settings, ["lora_r=8", "lora_r=16"], "has `lora_r` twice"),
        (read_settings, ["lr_scheduler_kwargs={a: 1},{a: 2}"], "takes one value"),
        (lambda _: make_points([1e-3], {}), None, "two peaks or more"),
    ],
)
def test_unusable_grids_are_named(read, value, words):
    with pytest.raises(ArgumentError, match=r"^`--") as error:
        read(value)
    assert words in str(error.value) and "\n" not in str(error.value)
