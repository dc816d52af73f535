"""Restart cycles: whole steps that add up, found without a logarithm."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched.schedules import restart_cycles as cycles

multipliers = st.one_of(st.floats(0.3, 4), st.sampled_from([1.0, 0.5, 2.0, 3.0, 1e-9, 1e9, 5e-324, 1e308]))


def lengths(schedule: hf_sched.Schedule) -> list[int]:
    """The steps of each cycle of a schedule, its rewarmup counted in."""
    starts = [s.first for s in schedule.segments if s.kind in ("restart", "warmup")]
    return [after - before for before, after in pairwise([0, *starts, schedule.num_training_steps])]


@settings(max_examples=1000, deadline=None)
@given(total=st.integers(1, 5000), num=st.integers(1, 40), multiplier=multipliers, shortest=st.integers(2, 6))
def test_filling_cycles_fill_the_run_exactly_or_cannot(total, num, multiplier, shortest):
    filled = cycles.fill(total, num, multiplier, shortest)
    longest = num - 1 if multiplier > 1 else 0
    weights = np.array([multiplier ** (i - longest) for i in range(num)])
    ideal = total * weights / weights.sum()
    if filled is None:
        assert num * shortest > total or ideal.min() < shortest + 1
    else:
        assert sum(filled) == total
        assert len(filled) == num
        assert min(filled) >= shortest
        # Each end is rounded by half a step at most, so no rounding adds up.
        assert np.abs(np.cumsum(filled) - np.cumsum(ideal)).max() <= 0.5 + 1e-6


@settings(max_examples=1000, deadline=None)
@given(total=st.integers(2, 5000), first=st.integers(2, 200), multiplier=multipliers, shortest=st.integers(2, 4))
def test_growing_cycles_are_whole_and_none_is_cut_off(total, first, multiplier, shortest):
    walked, left, following = cycles.walk(total, first, multiplier, shortest)
    assert sum(walked) + left == total
    assert all(n >= shortest for n in walked)
    assert left < following or following < shortest  # else there was room for one more
    for i, n in enumerate(walked):
        assert abs(n - first * multiplier**i) <= 0.5 + 1e-6


def test_cycles_of_10_times_3_start_where_integers_say():
    # 1210 is where torch's explicit `step(t)` and timm are wrong: their logarithm rounds to the cycle before.
    walked, left, following = cycles.walk(10 * (3**9 - 1) // 2, 10, 3.0, 2)
    assert walked == [10 * 3**i for i in range(9)]
    assert (left, following) == (0, 98411)  # the next one is capped just past the run
    schedule = hf_sched.build(
        "cosine_restarts", num_training_steps=3640, first_cycle=10, cycle_multiplier=3, floor_ratio=0.1
    )
    curve = schedule.curve(peak=1.0)
    for start in (0, 10, 40, 130, 400, 1210):
        assert curve[start] == 1.0
        assert start == 0 or curve[start - 1] == pytest.approx(0.1, rel=1e-12)
    assert np.flatnonzero(curve == 1.0).tolist() == [0, 10, 40, 130, 400, 1210]


@pytest.mark.parametrize("multiplier", [0.25, 0.5, 0.9, 1.0, 1.5, 2.0, 10.0])
def test_the_cycles_fill_every_run_after_every_warmup(multiplier):
    for total in (97, 1000, 4096):
        for num in (1, 2, 3, 4):
            for warmup in (0, 7, total // 2):
                try:
                    schedule = hf_sched.build(
                        "cosine_restarts",
                        num_training_steps=total,
                        num_warmup_steps=warmup,
                        num_cycles=num,
                        cycle_multiplier=multiplier,
                    )
                except ValueError:
                    # Four cycles, each ten (or a quarter) times the one before, need a hundred steps or more.
                    assert (total - warmup) * min(multiplier, 1 / multiplier) ** (num - 1) < 3
                    continue
                own = schedule.segments[1:] if warmup else schedule.segments
                assert sum(segment.steps for segment in own) == total - warmup
                assert len(own) == num


@pytest.mark.parametrize("steps", range(1, 41))
def test_the_default_cycles_fit_every_short_run_and_fewer_are_said(steps):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schedule = hf_sched.build("cosine_restarts", num_training_steps=steps)
    made = len(lengths(schedule))
    assert sum(lengths(schedule)) == steps
    said = [str(warning.message) for warning in caught]
    if made == 4:
        assert said == []
    else:
        assert len(said) == 1
        assert f"4 cycles do not fit into {steps} steps, so there are {made}; set `num_cycles` to choose" in said[0]
        assert cycles.fill(steps, made + 1, 2.0, 2) is None  # no more than needed are given up


@pytest.mark.parametrize(
    ("steps", "warmup", "first", "multiplier", "expected"),
    [
        (100, 0, 10, 2, [10, 20, 70]),  # 40 of 70 would be followed by 30 of 80
        (100, 10, 10, 2, [10, 20, 60]),
        (100, 0, 40, 1, [40, 60]),
        (100, 0, "60%", 2, [100]),
    ],
)
def test_a_last_cycle_that_would_be_cut_off_is_merged_with_a_warning(steps, warmup, first, multiplier, expected):
    with pytest.warns(UserWarning, match=f"merged into the cycle before it, number {len(expected)}, .* now has"):
        schedule = hf_sched.build(
            "cosine_restarts",
            num_training_steps=steps,
            num_warmup_steps=warmup,
            first_cycle=first,
            cycle_multiplier=multiplier,
        )
    own = schedule.segments[1:] if warmup else schedule.segments
    assert [segment.steps for segment in own] == expected


def test_cycles_that_fit_are_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = hf_sched.build("cosine_restarts", num_training_steps=70, first_cycle=10, cycle_multiplier=2)
    assert lengths(schedule) == [10, 20, 40]


def test_each_peak_is_a_share_of_the_one_before():
    schedule = hf_sched.build("cosine_restarts", num_training_steps=150, num_cycles=4, peak_multiplier=0.5)
    curve = schedule.curve(peak=0.8)
    assert [curve[start] for start in (0, 10, 30, 70)] == [0.8, 0.4, 0.2, 0.1]


def test_a_rewarmup_is_part_of_each_cycle_but_the_first_and_ends_on_its_peak():
    schedule = hf_sched.build(
        "cosine_restarts",
        num_training_steps=90,
        num_cycles=3,
        cycle_multiplier=1,
        rewarmup=6,
        peak_multiplier=0.5,
        min_lr=0.05,
    )
    assert lengths(schedule) == [30, 30, 30]
    curve = schedule.curve(peak=1.0)
    assert curve[0] == 1.0
    for start, top in ((30, 0.5), (60, 0.25)):
        assert curve[start + 5] == top
        np.testing.assert_allclose(np.diff(curve[start - 1 : start + 6]), (top - 0.05) / 6, rtol=1e-9)
        # The fall goes on from there: 24 steps that end on the floor.
        fall = 0.05 + (top - 0.05) * (1 + np.cos(np.pi * np.arange(1, 25) / 24)) / 2
        np.testing.assert_allclose(curve[start + 6 : start + 30], fall, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_cycles": 6}, "`num_cycles` must leave each cycle 2 steps or more, but 6 cycles, .* into 10 steps"),
        ({"num_cycles": 2, "rewarmup": 5}, "6 steps or more, .* or for a shorter `rewarmup`"),
        ({"first_cycle": 1}, "`first_cycle` must be 2 steps or more .* received 1 steps"),
        ({"first_cycle": 11}, "`first_cycle` must be .* at most the 10 steps after the warmup, received 11 steps"),
        ({"first_cycle": 4, "cycle_multiplier": 0.25}, "`cycle_multiplier` 0.25 shrinks the cycles to nothing 6 steps"),
    ],
)
def test_cycles_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        hf_sched.build("cosine_restarts", num_training_steps=10, **given)
