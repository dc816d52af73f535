"""The schedules of the catalogue: their phases, warnings, restart cycles, and arguments that do not fit together."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched import ArgumentError, EpochsUnknown
from hf_sched.schedules import registry
from hf_sched.schedules import restart_cycles as cycles
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
        ("warmup_cosine", 0, {}, "warmup 5 | decay 95 cosine"),
        ("warmup_cosine", 10, {}, "warmup 10 | decay 90 cosine"),  # the Trainer's replaces its own
        ("warmup_cosine", 0, {"warmup": 20, "warmup_shape": "exponential 3", "warmup_start_ratio": 0.1, "min_lr": 1e-5},
         "warmup 20 exponential 3.0 from 0.1 | decay 80 cosine; min_lr 1e-05"),
        ("minimind", 0, {}, "decay 100 cosine from 1.0 + 1.0 floor; floor 0.1"),
        ("minimind", 10, {"floor_ratio": 0.2}, "warmup 10 to 1.0 + 1.0 floor | decay 90 cosine; floor 0.2"),
        ("linear_with_warmup", 10, {}, "warmup 10 | decay 90"),
        ("cosine_restarts", 0, {}, "decay 7 cosine | restart 13 | restart 27 | restart 53"),
        ("cosine_cyclic", 10, {"half_period": 30}, "warmup 10 | decay 30 cosine | warmup 30 cosine | decay 30 cosine"),
        ("polynomial_floor", 10, {"power": 2}, "warmup 10 | decay 90 polynomial 2.0"),
        ("exponential", 10, {"gamma": 1.0}, "warmup 10 | hold 90"),
        ("exponential", 0, {"decay_rate": 0}, "hold 100"),
        ("step", 0, {"step_size": 100}, "hold 100"),  # the first decay would be in step 100
        ("multistep", 0, {"milestones": [50]}, "hold 50 | hold 50 at 0.1"),
        ("inverse_sqrt_cooldown", 10, {}, f"warmup 10 | decay 70 inverse_sqrt 7.0 to {8**-0.5!r} | decay 20"),
        ("inverse_sqrt_cooldown", 0, {"timescale": 10, "cooldown": 99}, "hold 1 | decay 99"),
        ("inverse_sqrt_cooldown", 0, {"timescale": 10, "cooldown": 100}, "decay 100"),
        ("wsd", 10, {}, "warmup 10 | hold 70 | decay 20 1-sqrt"),
        ("cosine_constant", 10, {}, "warmup 10 | decay 60 cosine to 0.1 | hold 20 | decay 10"),
        ("cosine_constant", 0, {"decay": 30, "constant_ratio": 0.5, "anneal": "20%", "anneal_shape": "1-sqrt"},
         "decay 30 cosine to 0.5 | hold 50 | decay 20 1-sqrt"),
        ("one_cycle", 0, {}, "warmup 30 cosine from 0.04 | decay 70 cosine to 0.0001"),
        ("one_cycle", 10, {"start_ratio": 0, "final_ratio": 0}, "warmup 10 cosine | decay 90 cosine to 0.0"),
        ("rex", 10, {}, "warmup 10 | decay 90 rex"),
        ("gradual_warmup", 0, {}, "warmup 5 | hold 95"),
        ("gradual_warmup", 10, {"multiplier": 4}, "warmup 10 from peak to 4.0 | hold 90"),
        ("lars_warmup", 0, {}, "warmup 5 lars 0.001 | hold 95"),
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
    with pytest.raises(EpochsUnknown, match=r"^`milestones.* in epochs \(11ep\)"):
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


def test_the_floor_after_a_gradual_warmup_may_be_an_inner_or_outer_argument():
    outside = build("gradual_warmup", 10, multiplier=3, after="cosine_floor", floor_ratio=0.2)
    inside = build("gradual_warmup", 10, multiplier=3, after="cosine_floor", after_kwargs={"floor_ratio": 0.2})
    assert outside == inside
    assert inside.curve(peak=1.0)[-1] == 0.2
    assert build("gradual_warmup", 10, after="rex", min_lr=1e-5).curve(peak=PEAK)[-1] == 1e-5
    # A schedule's own default is kept.
    assert build("gradual_warmup", 10, after="cosine_floor").curve(peak=1.0)[-1] == 0.1


@pytest.mark.parametrize("name", ["gradual_warmup", "lars_warmup"])
@pytest.mark.parametrize(
    ("kwargs", "culprit", "part"),
    [
        ({"after": "cosine_flor"}, "after", "did you mean 'cosine_floor'?"),
        ({"after": "cosine"}, "after", "did you mean 'cosine_floor'?"),  # not one of transformers' schedules
        ({"after": "lars_warmup"}, "after", "a schedule without a special warmup"),
        ({"after": "gradual_warmup"}, "after", "a schedule without a special warmup"),
        ({"after": "step"}, "after_kwargs", "cannot be used for `after` 'step': `step_size` is required"),
        ({"after": "rex", "after_kwargs": {"power": 2}}, "after_kwargs", "`power` is not an argument of rex"),
        ({"after": "warmup_cosine", "after_kwargs": {"warmup": 5}}, "after_kwargs", "sets a second warmup"),
        ({"after": "phases", "after_kwargs": {"phases": "warmup 5"}}, "after_kwargs", "sets a second warmup"),
        ({"after": "step", "after_kwargs": {"step_size": 5}, "min_lr": 0.1}, "min_lr", "is not an argument of step"),
        ({"after_kwargs": {"power": 2}}, "after", "must be the name of the schedule that takes {'power': 2}"),
        ({"min_lr": 0.1}, "after", "must be the name of the schedule that takes {'min_lr': 0.1}"),
        *(
            ({"after": "rex", "after_kwargs": {inside: 0.1}, outside: 0.1}, outside, f"beside the `{inside}` in")
            for inside in ("floor_ratio", "min_lr")
            for outside in ("floor_ratio", "min_lr")
        ),
    ],
)
def test_the_schedule_after_a_warmup_is_checked_with_its_arguments(name, kwargs, culprit, part):
    with pytest.raises(ArgumentError) as caught:
        build(name, 10, **kwargs)
    assert caught.value.name == culprit
    assert part in str(caught.value)


@pytest.mark.parametrize("warmup", [0, "0.1%", 100, "100%"])
@pytest.mark.parametrize(("name", "kwargs"), [("gradual_warmup", {"multiplier": 2}), ("lars_warmup", {})])
@pytest.mark.parametrize("after", [None, "rex"])
def test_a_special_warmup_has_a_step_and_an_end(name, kwargs, warmup, after):
    with pytest.raises(ArgumentError, match=r"`warmup` must be (1 step or more|shorter than the run)"):
        build(name, steps=100, **kwargs, after=after, warmup=warmup)


# Restart cycles.

multipliers = st.one_of(st.floats(0.3, 4), st.sampled_from([1.0, 0.5, 2.0, 3.0, 1e-9, 1e9, 5e-324, 1e308]))


@settings(max_examples=300, deadline=None)
@given(total=st.integers(1, 5000), num=st.integers(1, 40), multiplier=multipliers, shortest=st.integers(2, 6))
def test_filling_cycles_fill_the_run_exactly_or_do_not_fit(total, num, multiplier, shortest):
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


@settings(max_examples=300, deadline=None)
@given(total=st.integers(2, 5000), first=st.integers(2, 200), multiplier=multipliers, shortest=st.integers(2, 4))
def test_growing_cycles_are_whole(total, first, multiplier, shortest):
    walked, left, following = cycles.walk(total, first, multiplier, shortest)
    assert sum(walked) + left == total
    assert left < following or following < shortest  # else there was room for one more
    assert all(n >= shortest and abs(n - first * multiplier**i) <= 0.5 + 1e-6 for i, n in enumerate(walked))


def test_cycles_of_10_times_3_start_where_integers_say():
    # At 1210 torch's explicit `step(t)` and timm are wrong: their logarithm rounds to the previous cycle.
    walked, left, following = cycles.walk(10 * (3**9 - 1) // 2, 10, 3.0, 2)
    assert walked == [10 * 3**i for i in range(9)]
    assert (left, following) == (0, 98411)  # the next one is capped just past the run
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
    assert len(lengths) == 4 or cycles.fill(steps, len(lengths) + 1, 2.0, 2) is None  # as many as fit


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
    with pytest.warns(UserWarning, match=f"merged into the previous cycle, number {len(expected)}, .* now has"):
        schedule = build("cosine_restarts", warmup, steps, first_cycle=first, cycle_multiplier=multiplier)
    assert steps_of(schedule)[bool(warmup) :] == expected


def test_cycles_that_fit_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = build("cosine_restarts", steps=70, first_cycle=10, cycle_multiplier=2)
    assert cycle_lengths(schedule) == [10, 20, 40]
