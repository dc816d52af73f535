"""The named schedules against the closed forms and the curves of other libraries, to 1e-12."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from transformers import get_cosine_with_min_lr_schedule_with_warmup

import hf_sched

PEAK = 3e-4


def played(make, count: int, peak: float = PEAK) -> list[float]:
    """The first values of another library's scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
        values = []
        for _ in range(count):
            values.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
    return values


def closed_form(steps: int, peak: float, floor: float) -> list[float]:
    """Torch's cosine annealing over `steps` steps by its closed form: its `step` is recursive and drifts."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = CosineAnnealingLR(optimizer, steps - 1, floor)
    values = []
    for scheduler.last_epoch in range(steps):
        values += scheduler._get_closed_form_lr()
    return values


def curve(name: str, steps: int, warmup: int = 0, **kwargs: object) -> np.ndarray:
    return hf_sched.build(name, num_training_steps=steps, num_warmup_steps=warmup, **kwargs).curve(peak=PEAK)


@pytest.mark.parametrize("steps", [2, 3, 100, 1001])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5])
def test_cosine_floor_is_torchs_cosine_annealing(steps, ratio):
    # Without a warmup LR(k) = ref(k; T = N - 1).
    theirs = closed_form(steps, PEAK, ratio * PEAK)
    np.testing.assert_allclose(curve("cosine_floor", steps, floor_ratio=ratio), theirs, rtol=1e-12, atol=1e-12 * PEAK)


@pytest.mark.parametrize(("steps", "warmup"), [(100, 10), (100, 1), (57, 30)])
def test_a_warmed_up_cosine_is_transformers_one_step_on(steps, warmup):
    # With one LR(k) = ref(k + 1; w = W, T = N).
    theirs = played(lambda o: get_cosine_with_min_lr_schedule_with_warmup(o, warmup, steps, min_lr_rate=0.1), steps + 1)
    np.testing.assert_allclose(curve("cosine_floor", steps, warmup, floor_ratio=0.1), theirs[1:], rtol=1e-12)
    np.testing.assert_allclose(curve("warmup_cosine", steps, warmup, floor_ratio=0.1), theirs[1:], rtol=1e-12)


def test_a_start_above_zero_is_torchs_sequential():
    steps, warmup, start = 80, 20, 0.25

    def theirs(optimizer):
        parts = [LinearLR(optimizer, start, total_iters=warmup), CosineAnnealingLR(optimizer, steps - warmup, 1e-5)]
        return SequentialLR(optimizer, parts, [warmup])

    ours = curve("warmup_cosine", steps, warmup, warmup_start_ratio=start, min_lr=1e-5)
    np.testing.assert_allclose(ours, played(theirs, steps + 1)[1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "formula"),
    [
        ("linear", lambda x: x),
        ("cosine", lambda x: (1 - math.cos(math.pi * x)) / 2),
        ("sqrt", math.sqrt),
        ("exponential", lambda x: (1 - 0.01**x) / 0.99),
        ("geometric", lambda x: (0.1 ** (1 - x) - 0.1) / 0.9),
    ],
)
def test_each_warmup_shape_is_its_formula(shape, formula):
    ours = curve("warmup_cosine", 50, 20, warmup_shape=shape, warmup_start_ratio=0.1)
    expected = [PEAK * (0.1 + 0.9 * formula((k + 1) / 20)) for k in range(20)]
    np.testing.assert_allclose(ours[:20], expected, rtol=1e-12)
    if shape == "geometric":
        np.testing.assert_allclose(ours[1:20] / ours[:19], 10 ** (1 / 20), rtol=1e-12)


def cycles(schedule: hf_sched.Schedule) -> list[int]:
    """The lengths of the restart cycles, the rewarmups counted in."""
    lengths: list[int] = []
    for segment in schedule.segments:
        if segment.kind in ("restart", "warmup") or not lengths:
            lengths.append(0)
        lengths[-1] += segment.steps
    return lengths


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize("num_cycles", [1, 2, 5])
@pytest.mark.parametrize("steps", [301, 1000])
def test_restarts_fill_the_run_and_each_cycle_is_a_cosine(steps, num_cycles, multiplier):
    schedule = hf_sched.build(
        "cosine_restarts",
        num_training_steps=steps,
        num_cycles=num_cycles,
        cycle_multiplier=multiplier,
        peak_multiplier=0.9,
        floor_ratio=0.1,
    )
    lengths, ours = cycles(schedule), schedule.curve(peak=PEAK)
    assert sum(lengths) == steps
    assert len(lengths) == num_cycles
    weights = multiplier ** np.arange(num_cycles)
    assert np.abs(np.array(lengths) - steps * weights / weights.sum()).max() <= 1
    start = 0
    for i, n in enumerate(lengths):
        top = PEAK * 0.9**i
        np.testing.assert_allclose(ours[start : start + n], closed_form(n, top, 0.1 * PEAK), rtol=1e-12)
        assert ours[start] == pytest.approx(top, rel=1e-12)
        assert ours[start + n - 1] == pytest.approx(0.1 * PEAK, rel=1e-12)
        start += n


def test_restarts_are_walked_in_whole_numbers():
    # 10, 30, 90, 270, 810: torch and timm take step 1210 for part of the cycle that has just ended.
    schedule = hf_sched.build("cosine_restarts", num_training_steps=3640, first_cycle=10, cycle_multiplier=3)
    assert cycles(schedule) == [10, 30, 90, 270, 810, 2430]
    assert schedule.lr(1209, peak=1.0) == 0
    assert schedule.lr(1210, peak=1.0) == 1


def test_a_last_cycle_that_would_be_cut_off_is_merged_and_said():
    with pytest.warns(
        UserWarning, match="would have 80 steps, but only 30 are left: .* number 3, which now has 70 steps"
    ):
        schedule = hf_sched.build("cosine_restarts", num_training_steps=100, first_cycle="10%", cycle_multiplier=2)
    assert cycles(schedule) == [10, 20, 70]


def test_the_default_number_of_cycles_gives_way_in_a_short_run_and_says_so():
    with pytest.warns(UserWarning, match="4 cycles do not fit into 10 steps, so there are 2; set `num_cycles`"):
        assert len(cycles(hf_sched.build("cosine_restarts", num_training_steps=10))) == 2
    with pytest.raises(ValueError, match="`num_cycles` must leave each cycle 2 steps or more"):
        hf_sched.build("cosine_restarts", num_training_steps=10, num_cycles=4)


def test_a_rewarmup_climbs_from_the_floor_to_the_cycles_peak():
    schedule = hf_sched.build(
        "cosine_restarts",
        num_training_steps=100,
        num_cycles=2,
        cycle_multiplier=1,
        rewarmup=5,
        peak_multiplier=0.5,
        floor_ratio=0.1,
    )
    ours = schedule.curve(peak=1.0)
    np.testing.assert_allclose(ours[49:55], np.linspace(0.1, 0.5, 6), rtol=1e-12)
    assert ours[-1] == pytest.approx(0.1, rel=1e-12)
