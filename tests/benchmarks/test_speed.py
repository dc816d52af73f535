"""The bounds of docs/speed.md hold, and the benchmark times only what does the work."""

from __future__ import annotations

import pickle

import pytest
import torch

import hf_sched
from benchmarks.speed import contenders, run
from benchmarks.speed.timing import Bound, Timing, interleave


@pytest.mark.slow
@pytest.mark.parametrize("section", ["step", "callbacks", "curve"])
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
def test_bounds_on_speed_hold(section):
    for _ in range(4):  # other load only makes figures worse
        missed = [bound for bound in run.SECTIONS[section](True).bounds if not bound.is_met]
        if not missed:
            return
    raise AssertionError("\n".join(map(str, missed)))


def test_report_shows_every_import_and_missed_bounds(monkeypatch):
    monkeypatch.setattr(run, "IMPORTS", {"hf_sched": "import hf_sched", "numpy": "import numpy"})
    section = run.measure_import(quick=True)
    section.bounds = [Bound("a figure", 2.0, at_least=3), Bound("another", 2.0, at_most=3)]
    page = run.report([section])
    assert "| numpy | " in page
    assert "| a figure | at least 3 | 2 | **missed** |\n| another | at most 3 | 2 | met |" in page


@pytest.mark.parametrize(
    "rate",
    [lambda t: 1.0, lambda t: float(t < 0.5), lambda t: (1 - t) / 2, lambda t: 1 - t / 2, lambda t: 2 * (1 - t)],
    ids=["constant", "two rates", "low peak", "no end", "high peak"],
)
def test_a_contender_that_does_not_do_the_work_is_rejected(rate, monkeypatch):
    class Fake:
        def __init__(self, optimizer, warmup, steps):
            self.optimizer, self.steps, self.count = optimizer, steps, 0

        def step(self):
            self.count += 1
            for group in self.optimizer.param_groups:
                group["lr"] = contenders.PEAK * rate(self.count / self.steps)

    monkeypatch.setitem(contenders.SCHEDULERS, "fake", Fake)
    with pytest.raises(ValueError, match=r"fake does not rise to 0\.001 and fall to 0"):
        contenders.check("fake", [contenders.PEAK])


@pytest.mark.parametrize("name", contenders.SCHEDULERS)
def test_contenders_do_the_work(name):
    for peaks in ([1e-3], [1e-3, 1e-4]) if name in contenders.FLOATS_ONLY else ([1e-3], [torch.tensor(1e-3)]):
        contenders.check(name, peaks)


@pytest.mark.parametrize("name", ["cosine_floor", "wsd", "cosine_restarts", "inverse_sqrt_cooldown", "one_cycle"])
def test_memory_of_a_schedule_does_not_grow_with_its_steps(name):
    sizes = []
    for steps in (10**3, 10**9):
        schedule = hf_sched.build(name, num_training_steps=steps, num_warmup_steps=steps // 10)
        for step in (0, steps // 2, steps - 1):
            schedule.lr(step, peak=1e-3)
        sizes.append(len(pickle.dumps(vars(schedule))))
    assert sizes[1] <= 1.25 * sizes[0]


def test_ratios_are_those_of_the_fastest_rounds():
    rounds = {"hf_sched": iter([1.0, 2.0, 8.0]), "other": iter([3.0, 8.0, 16.0])}
    timings = interleave({name: seconds.__next__ for name, seconds in rounds.items()}, rounds=3)
    assert timings == {"hf_sched": Timing(2.0, 1.0, 1.0), "other": Timing(8.0, 3.0, 3.0)}
