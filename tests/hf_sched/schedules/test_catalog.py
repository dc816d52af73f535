"""The schedules of the catalogue: their phases, warnings, restart cycles, and arguments that do not fit together."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched import ArgumentError, DurationUnknown
from hf_sched.schedules import registry, restart_cycles
from tests.helpers.catalog import CATALOGUE, build, example

PEAK = 3e-4


def curve(name: str, trainers_warmup: int = 0, /, **kwargs: object) -> np.ndarray:
    return build(name, trainers_warmup, **kwargs).curve(peak=PEAK)


def steps_of(schedule: hf_sched.Schedule) -> list[int]:
    return [segment.steps for segment in schedule.segments]


def cycle_lengths(schedule: hf_sched.Schedule) -> list[int]:
    """The steps of each restart cycle, its rewarmup included."""
    starts = [s.first for s in schedule.segments if s.kind in ("restart", "warmup")]
    return [after - before for before, after in pairwise([0, *starts, schedule.num_training_steps])]


@pytest.mark.parametrize(
    ("name", "warmup", "kwargs", "text"),
    [
        ("cosine_floor", 10, {}, "warmup 10 | decay 90 cosine; floor 0.1"),
        ("warmup_cosine", 10, {}, "warmup 10 | decay 90 cosine"),  # the Trainer's replaces its own
        ("warmup_cosine", 0, {"warmup": 20, "warmup_shape": "exponential 3", "warmup_start_ratio": 0.1, "min_lr": 1e-5},
         "warmup 20 exponential 3.0 from 0.1 | decay 80 cosine; min_lr 1e-05"),
        ("minimind", 0, {}, "decay 100 cosine from 1.0 + 1.0 floor; floor 0.1"),
        ("minimind", 10, {"floor_ratio": 0.2}, "warmup 10 to 1.0 + 1.0 floor | decay 90 cosine; floor 0.2"),
        ("cosine_restarts", 0, {}, "decay 7 cosine | restart 13 | restart 27 | restart 53"),
        ("cosine_cyclic", 10, {"half_period": 30}, "warmup 10 | decay 30 cosine | warmup 30 cosine | decay 30 cosine"),
        ("exponential", 10, {"gamma": 1.0}, "warmup 10 | hold 90"),
        ("exponential", 0, {"decay_rate": 0}, "hold 100"),
        ("step", 0, {"step_size": 100}, "hold 100"),  # the first decay would be in step 100
        ("multistep", 0, {"milestones": [50]}, "hold 50 | hold 50 at 0.1"),
        ("inverse_sqrt_cooldown", 10, {}, f"warmup 10 | decay 70 inverse_sqrt 7.0 to {8**-0.5!r} | decay 20"),
        ("inverse_sqrt_cooldown", 0, {"timescale": 10, "cooldown": 99}, "hold 1 | decay 99"),
        ("inverse_sqrt_cooldown", 0, {"timescale": 10, "cooldown": 100}, "decay 100"),
        ("cosine_constant", 10, {}, "warmup 10 | decay 60 cosine to 0.1 | hold 20 | decay 10"),
        ("cosine_constant", 0, {"decay": 30, "constant_ratio": 0.5, "anneal": "20%", "anneal_shape": "1-sqrt"},
         "decay 30 cosine to 0.5 | hold 50 | decay 20 1-sqrt"),
        ("one_cycle", 0, {}, "warmup 30 cosine from 0.04 | decay 70 cosine to 0.0001"),
        ("one_cycle", 10, {"start_ratio": 0, "final_ratio": 0}, "warmup 10 cosine | decay 90 cosine to 0.0"),
        ("gradual_warmup", 10, {"multiplier": 4}, "warmup 10 from peak to 4.0 | hold 90"),
        ("lars_warmup", 10, {"trust_coefficient": 0.02, "after": "wsd", "after_kwargs": {"decay": 30}},
         "warmup 10 lars 0.02 | hold 60 | decay 30 1-sqrt"),
        ("phases", 10, {"phases": "hold 50% at 0.5 | decay"}, "warmup 10 to 0.5 | hold 50 | decay 40"),
        ("phases", 0, {"phases": [{"warmup": "5%"}, "hold 5", {"decay": None, "shape": "rex"}], "min_lr": 1e-5},
         "warmup 5 | hold 5 | decay 90 rex; min_lr 1e-05"),
    ],
)  # fmt: skip
def test_a_schedule_has_these_phases(name, warmup, kwargs, text):
    assert str(build(name, warmup, **kwargs)) == text


# Cosine waves.


@pytest.mark.parametrize(
    ("steps", "warmup", "lengths"), [(11, 0, [11]), (31, 0, [11, 10, 10]), (20, 10, [10, 10]), (40, 10, [10] * 4)]
)
def test_a_cosine_wave_that_ends_on_a_trough_does_not_warn(steps, warmup, lengths):
    # Half a period of 10 steps. Without a warmup the first crest takes one separate step.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = build("cosine_cyclic", warmup, steps, half_period=10)
    assert steps_of(schedule) == lengths


@pytest.mark.parametrize(
    ("steps", "lengths"),
    [
        (32, [11, 10, 11]),  # one step longer than half a period
        (45, [11, 10, 24]),  # a next descent would be of 4 steps: too short
        (46, [11, 10, 10, 10, 5]),  # half of one is enough
    ],
)
def test_the_last_descent_of_a_wave_is_adapted_with_a_warning(steps, lengths):
    with pytest.warns(UserWarning, match=f"^cosine_cyclic: .* the last descent has {lengths[-1]} steps instead of 10"):
        schedule = build("cosine_cyclic", steps=steps, half_period=10, floor_ratio=0.1)
    assert steps_of(schedule) == lengths
    assert schedule.curve(peak=1.0)[-1] == 0.1


# Exponentials and stairs.


@pytest.mark.parametrize(
    ("milestones", "step", "previous"),
    [([50, "40%"], 40, 50), ([10], 10, 10), ([50, 100], 100, 50), (["0.1%"], 0, 10), (["11ep"], 110, 10)],
)
def test_milestones_ascend_within_the_run(milestones, step, previous):
    with pytest.raises(ArgumentError, match=f"`milestones` must .*; step {step} does not come after step {previous}"):
        build("multistep", 10, milestones=milestones, steps_per_epoch=10)
    with pytest.raises(DurationUnknown, match=r"^`milestones.* in epochs \(11ep\)"):
        build("multistep", milestones=["11ep"])


# A peak that is held, left slowly, or climbed beyond.


@pytest.mark.parametrize("decay", ["0.1%", 0.001, "0.01ep", 1])
@pytest.mark.parametrize("warmup", [0, 10, 60])
def test_a_cooldown_shorter_than_a_step_gets_one_step(warmup, decay):
    # The run ends on the floor, and the warmup keeps its length.
    schedule = build("wsd", warmup, decay=decay, steps_per_epoch=20)
    assert [(segment.kind, segment.steps) for segment in schedule.segments[-2:]] == [
        ("hold", 99 - warmup),
        ("decay", 1),
    ]
    assert schedule.curve(peak=1.0)[-2:].tolist() == [1.0, 0.0]


@pytest.mark.filterwarnings("ignore:cosine_(restarts|cyclic):UserWarning")
@pytest.mark.parametrize("after", [name for name in CATALOGUE if name not in ("gradual_warmup", "lars_warmup")])
def test_a_gradual_warmup_runs_any_schedule_from_a_multiple_of_the_peak(after):
    kwargs = {**example(after), "phases": "hold 20 | decay polynomial 2"} if after == "phases" else example(after)
    kwargs.pop("warmup", None)  # the outer warmup replaces it
    if "min_lr" in registry.entry(after).arguments and after not in ("step", "multistep", "one_cycle"):
        kwargs = {**kwargs, "floor_ratio": 0}
    ours = curve("gradual_warmup", 10, multiplier=3, after=after, after_kwargs=kwargs)
    alone = build(after, 10, **kwargs)
    np.testing.assert_allclose(ours[:10], PEAK * (1 + 2 * np.arange(1, 11) / 10), rtol=1e-12)
    if after == "exponential":  # the floor is a share of the peak, not of the multiplied one
        alone = build(after, 10, floor_ratio=0.01 / 3)
    np.testing.assert_allclose(ours[9:], alone.curve(peak=3 * PEAK)[9:], rtol=1e-12)


def test_the_floor_after_a_gradual_warmup_is_a_share_of_the_peak():
    kwargs = {"multiplier": 3, "after": "cosine_floor"}
    assert build("gradual_warmup", 10, **kwargs, after_kwargs={"floor_ratio": 0.2}).curve(peak=1.0)[-1] == 0.2
    assert build("gradual_warmup", 10, **kwargs, min_lr=1e-5).curve(peak=PEAK)[-1] == 1e-5
    # A schedule's own default is kept.
    assert build("gradual_warmup", 10, **kwargs).curve(peak=1.0)[-1] == 0.1


# Restart cycles.

multipliers = st.one_of(st.floats(0.3, 4), st.sampled_from([1.0, 0.5, 2.0, 3.0, 1e-9, 1e9, 5e-324, 1e308]))


@settings(max_examples=300, deadline=None)
@given(total=st.integers(1, 5000), num=st.integers(1, 40), multiplier=multipliers, climb=st.integers(0, 5))
def test_filling_cycles_fill_the_run_exactly_or_do_not_fit(total, num, multiplier, climb):
    longest = num - 1 if multiplier > 1 else 0
    weights = np.array([multiplier ** (i - longest) for i in range(num)])
    ideal = total * weights / weights.sum()
    shortest = max(2, climb + 1)
    try:
        filled = restart_cycles.filling(total, num, multiplier, climb)
    except ArgumentError:
        assert num * shortest > total or ideal.min() < shortest + 1
        return
    assert sum(filled) == total
    assert len(filled) == num
    assert min(filled) >= shortest
    # Each end is rounded by half a step at most, so no rounding adds up.
    assert np.abs(np.cumsum(filled) - np.cumsum(ideal)).max() <= 0.5 + 1e-6


@pytest.mark.filterwarnings("ignore:cosine_restarts:UserWarning")
@settings(max_examples=300, deadline=None)
@given(total=st.integers(200, 5000), first=st.integers(4, 200), multiplier=multipliers, climb=st.integers(0, 3))
def test_growing_cycles_are_whole(total, first, multiplier, climb):
    grown = restart_cycles.growing(total, first, multiplier, climb)
    assert sum(grown) == total
    assert all(abs(n - first * multiplier**i) <= 0.5 + 1e-6 for i, n in enumerate(grown[:-1]))
    left = grown[-1] - first * multiplier ** (len(grown) - 1)
    following = first * multiplier ** len(grown)
    assert left >= -0.5 - 1e-6  # a last cycle is whole, and there is no room for one more
    assert left < following + 1 or following < max(2, climb + 1)


def test_cycles_of_10_times_3_start_where_integers_say():
    # At 1210 torch's explicit `step(t)` and timm are wrong: their logarithm rounds to the previous cycle.
    assert restart_cycles.growing(10 * (3**9 - 1) // 2, 10, 3.0, 0) == [10 * 3**i for i in range(9)]
    schedule = build("cosine_restarts", steps=3640, first_cycle=10, cycle_multiplier=3, floor_ratio=0.1)
    curve = schedule.curve(peak=1.0)
    starts = [0, 10, 40, 130, 400, 1210]
    assert np.flatnonzero(curve == 1.0).tolist() == starts
    np.testing.assert_allclose(curve[np.array(starts[1:]) - 1], 0.1, rtol=1e-12)


@pytest.mark.parametrize("steps", range(1, 41))
def test_a_short_run_has_fewer_default_cycles_with_a_warning(steps):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schedule = build("cosine_restarts", steps=steps)
    lengths = cycle_lengths(schedule)
    assert sum(lengths) == steps
    made = f"4 cycles do not fit into {steps} steps, so there are {len(lengths)}; set `num_cycles` to choose"
    assert [str(warning.message) for warning in caught] == ([] if len(lengths) == 4 else [f"cosine_restarts: {made}"])
    if len(lengths) < 4:  # as many as fit
        with pytest.raises(ArgumentError, match="`num_cycles` must leave each"):
            build("cosine_restarts", steps=steps, num_cycles=len(lengths) + 1)


@pytest.mark.parametrize(
    ("steps", "warmup", "first", "multiplier", "expected"),
    [
        (100, 0, 10, 2, [10, 20, 70]),  # 40 of 70 would be followed by 30 of 80
        (100, 10, 10, 2, [10, 20, 60]),
        (100, 0, 40, 1, [40, 60]),
        (100, 0, "60%", 2, [100]),
        (100, 0, 9, 0.5, [9, 5, 86]),  # a next cycle would be too short
    ],
)
def test_a_last_cycle_that_would_be_cut_off_is_merged_with_a_warning(steps, warmup, first, multiplier, expected):
    with pytest.warns(UserWarning, match=f"merged into the previous cycle, number {len(expected)}, .* now has"):
        schedule = build("cosine_restarts", warmup, steps, first_cycle=first, cycle_multiplier=multiplier)
    assert steps_of(schedule)[bool(warmup) :] == expected


def test_cycles_that_fit_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = build("cosine_restarts", steps=70, first_cycle=10, cycle_multiplier=2)
    assert cycle_lengths(schedule) == [10, 20, 40]
