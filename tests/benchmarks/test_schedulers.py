"""The benchmark runs and times no stub; and since seconds are noise in a test, the calls of a `step()` are counted."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import contenders  # noqa: E402
import curves  # noqa: E402
import measure  # noqa: E402
import schedulers  # noqa: E402

PEAK = contenders.PEAK


def test_a_quick_run_times_every_contender(tmp_path):
    command = [sys.executable, "benchmarks/schedulers.py", "--quick", "--only", "step", "curve", "memory"]
    output = tmp_path / "figures.json"
    done = subprocess.run([*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "## Targets" in done.stdout
    sections = json.loads(output.read_text(encoding="utf-8"))["sections"]

    for name, listed in (("step", contenders.CONTENDERS), ("curve", curves.CURVES)):
        left_out = " ".join(sections[name]["remarks"])
        columns = sections[name]["columns"]
        assert len(columns) == (7 if name == "step" else 1)
        for column, timings in columns.items():
            for contender in listed:
                one_for_all = "a rate each" in column and not contender.own_rates
                assert contender.name in timings or f"Left out: {contender.name}" in left_out or one_for_all
            assert timings["hf_sched"]["ratio"] == 1
            for timing in timings.values():
                assert 0 < timing["seconds"] < math.inf and 0 < timing["ratio"] < math.inf

    short, _, long = sections["memory"]["columns"].values()
    assert "warmup_cosine" in long
    assert all(long[name] <= schedulers.MEMORY_GROWTH * short[name] for name in long)


def test_imports_are_timed_in_fresh_interpreters(monkeypatch):
    monkeypatch.setitem(schedulers.IMPORTS, "missing", "import no_such_library")
    monkeypatch.setattr(schedulers, "QUICK_IMPORTS", ("hf_sched", "numpy", "missing"))
    section = schedulers.measure_import(quick=True)
    assert set(section.columns["time"]) == {"hf_sched", "numpy"}
    assert "Left out: missing (ModuleNotFoundError: No module named 'no_such_library')." in section.remarks


def test_a_library_that_hf_sched_does_not_need_may_be_missing(monkeypatch):
    monkeypatch.setattr(contenders, "OPTIONAL", {"no_such_library"})
    reasons = contenders.missing(["numpy", "no_such_library"])
    assert reasons == {"no_such_library": "ModuleNotFoundError: No module named 'no_such_library'"}


def test_plain_numpy_draws_the_curve_of_hf_sched():
    ours, plain = curves.HF_SCHED.ready(10, 100)(), curves.NUMPY.ready(10, 100)()
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-15)


class Stub:
    """Writes what a function of the step gives to all groups."""

    def __init__(self, optimizer, rate: Callable[[float], float]):
        self.optimizer, self.rate, self.count = optimizer, rate, 0

    def step(self):
        self.count += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.count / contenders.CHECKED_STEPS)


@pytest.mark.parametrize(
    ("rate", "peaks", "message"),
    [
        (lambda _: PEAK, [PEAK], "stub, parameter group 0: 1 different learning rates in 100 steps"),
        (lambda t: PEAK * (t < 0.5), [PEAK], "2 different learning rates in 100 steps"),
        (lambda t: 0.5 * PEAK * (1 - t), [PEAK], "the highest learning rate is"),
        (lambda t: PEAK * (1 - t / 2), [PEAK], "the last learning rate is"),
        (lambda t: PEAK * (1 - t * t), [PEAK, PEAK / 2], "stub, parameter group 1: the highest learning rate is"),
    ],
)
def test_a_stub_is_not_timed(rate, peaks, message):
    stub = contenders.Contender("stub", "numpy", lambda _, optimizer, warmup, steps: Stub(optimizer, rate))
    with pytest.raises(ValueError, match=message):
        contenders.check(stub, peaks)


def test_ratios_are_of_the_same_round():
    rounds = {"hf_sched": iter([1.0, 2.0, 8.0]), "other": iter([3.0, 8.0, 16.0])}
    timings = measure.interleave({name: seconds.__next__ for name, seconds in rounds.items()}, rounds=3)
    assert timings == {"hf_sched": measure.Timing(2.0, 1.0), "other": measure.Timing(8.0, 3.0)}


@pytest.mark.parametrize(("measured", "met"), [(3.0, True), (2.9, False), (math.nan, False)])
def test_check_fails_where_a_target_is_missed(measured, met, monkeypatch, capsys):
    section = measure.Section("a section", targets=[measure.Target("times as fast", measured, at_least=3)])
    monkeypatch.setattr(schedulers, "SECTIONS", {"step": lambda quick: section})
    monkeypatch.setattr(sys, "argv", ["schedulers.py", "--quick"])
    schedulers.main()
    assert ("NOT met" in capsys.readouterr().out) is not met
    monkeypatch.setattr(sys, "argv", ["schedulers.py", "--quick", "--check"])
    if met:
        schedulers.main()
    else:
        with pytest.raises(SystemExit, match="1"):
            schedulers.main()


def python_calls(step: Callable[[], object]) -> int:
    """How many Python functions are entered in a call, itself among them."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("own_rates", [False, True])
@pytest.mark.parametrize("groups", [1, 10, 1000])
@pytest.mark.parametrize("steps", [10**3, 10**6, 10**9])
def test_a_step_makes_few_python_calls_whatever_the_groups_and_the_length_of_the_run(groups, own_rates, steps):
    peaks = [PEAK * (number + 1) / groups if own_rates else PEAK for number in range(groups)]
    _, scheduler = contenders.HF_SCHED.start(peaks, steps // 10, steps)
    scheduler.step()  # torch's own first step, with its own bookkeeping for each group
    calls = [python_calls(scheduler.step) for _ in range(500)]
    assert statistics.median(calls) <= 5
    assert max(calls) <= 100  # now and then rates are worked out for many steps at once
