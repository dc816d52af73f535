"""The rules that every schedule obeys (see hf_sched/schedule.py)."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import hf_sched

EXACT = 1e-12
NAMES = ["cosine_floor", "warmup_cosine", "cosine_restarts"]
pytestmark = pytest.mark.filterwarnings("ignore:cosine_restarts:UserWarning")


def build(name: str, steps: int, trainer_warmup: int = 0, **kwargs: object) -> hf_sched.Schedule:
    return hf_sched.build(name, num_training_steps=steps, num_warmup_steps=trainer_warmup, **kwargs)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[hf_sched.Schedule, int, float]:
    """Any of our schedules, its warmup, and a peak."""
    steps = draw(st.integers(1, 400))
    warmup = draw(st.integers(0, steps - 1))
    peak = draw(st.floats(1e-8, 10))
    name = draw(st.sampled_from(NAMES))
    kwargs: dict[str, object] = {}
    if draw(st.booleans()):
        kwargs["floor_ratio"] = draw(st.floats(0, 1))
    elif draw(st.booleans()):
        kwargs["min_lr"] = draw(st.floats(0, peak))
    if name == "warmup_cosine":
        kwargs["warmup_shape"] = draw(st.sampled_from(["linear", "cosine", "sqrt", "exponential", "geometric"]))
        kwargs["warmup_start_ratio"] = draw(st.floats(1e-6, 0.99))
        if not warmup:
            kwargs["warmup"] = draw(st.integers(0, steps - 1))
    if name == "cosine_restarts":
        which = draw(st.sampled_from(["num_cycles", "first_cycle"]))
        kwargs[which] = draw(st.integers(1, 1 + (steps - warmup) // 2))
        kwargs["cycle_multiplier"] = draw(st.floats(0.5, 3))
        kwargs["peak_multiplier"] = draw(st.floats(0.5, 1))
        kwargs["rewarmup"] = draw(st.integers(0, 3))
    try:
        schedule = build(name, steps, warmup, **kwargs)
        schedule.floor(peak)
    except ValueError:
        assume(False)
    return schedule, kwargs.get("warmup", warmup), peak  # type: ignore[return-value]


@settings(max_examples=600, deadline=None)
@given(schedules())
def test_every_schedule_obeys_the_rules(drawn):
    schedule, warmup, peak = drawn
    curve, floor = schedule.curve(peak=peak), schedule.floor(peak)
    steps = schedule.num_training_steps
    assert curve.shape == (steps,)
    assert curve.dtype == np.float64
    # One step at a time, in any order, is the whole curve bit for bit.
    assert [schedule.lr(step, peak=peak) for step in reversed(range(steps))] == curve[::-1].tolist()
    assert np.isfinite(curve).all()
    assert curve.max() <= peak
    assert curve[warmup:].min() >= floor
    assert curve.min() > 0 or floor == 0
    assert curve[max(warmup - 1, 0)] == peak
    if steps > 1:
        assert curve[-1] == pytest.approx(floor, rel=EXACT, abs=0)
    for past in (0, 1, 1000, 10**9):
        assert schedule.lr(steps + past, peak=peak) == curve[-1]
    # The segments lie on the steps without a gap.
    assert sum(segment.steps for segment in schedule.segments) == steps
    assert schedule == pickle.loads(pickle.dumps(copy.deepcopy(schedule)))


@pytest.mark.parametrize("name", NAMES)
def test_a_one_step_run_trains_at_its_peak(name):
    assert build(name, 1).curve(peak=3e-4).tolist() == [3e-4]


@pytest.mark.parametrize("warmup", [1, 2, 50, 99])
@pytest.mark.parametrize("name", NAMES[:2])
def test_a_warmup_counts_every_step(name, warmup):
    curve = build(name, 100, warmup, floor_ratio=0.1).curve(peak=1.0)
    np.testing.assert_allclose(curve[:warmup], np.arange(1, warmup + 1) / warmup, rtol=EXACT)
    assert curve[-1] == pytest.approx(0.1, rel=EXACT)


def test_no_warmup_starts_at_the_peak():
    curve = build("cosine_floor", 100).curve(peak=0.3)
    assert curve[0] == 0.3
    assert curve[1] < 0.3


def test_floors_are_right_in_every_group():
    absolute, ratio = build("cosine_floor", 50, min_lr=0.001), build("cosine_floor", 50, floor_ratio=0.1)
    assert [absolute.curve(peak=peak)[-1] for peak in (1.0, 0.01)] == [0.001, 0.001]
    np.testing.assert_allclose([ratio.curve(peak=peak)[-1] for peak in (1.0, 0.01)], [0.1, 0.001], rtol=EXACT)


def test_a_floor_above_the_peak_is_an_error():
    schedule = build("cosine_floor", 10, min_lr=1e-3)
    with pytest.raises(ValueError, match=r"`min_lr` must be at most the peak learning rate 0.0001, received 0.001"):
        schedule.lr(0, peak=1e-4)
    assert schedule.lr(9, peak=1e-3) == 1e-3


def test_a_decay_that_would_rise_is_an_error():
    with pytest.raises(ValueError, match=r"must fall, but would rise .*`floor_ratio` 0.5"):
        build("cosine_restarts", 100, num_cycles=3, peak_multiplier=0.2, floor_ratio=0.5)
    late = build("cosine_restarts", 100, num_cycles=3, peak_multiplier=0.2, min_lr=0.5)
    with pytest.raises(ValueError, match=r"must fall, but would rise .*`min_lr` 0.5"):
        late.lr(0, peak=1.0)


@pytest.mark.parametrize("step", [-1, 1.5, "x", True, None])
def test_a_step_is_a_whole_number(step):
    with pytest.raises(ValueError, match="`step` must be a whole number"):
        build("cosine_floor", 10).lr(step, peak=1.0)


def test_a_share_of_the_run_is_rounded_to_the_nearest_step():
    def warmup_steps(share: object, steps: int) -> int:
        return build("warmup_cosine", steps, warmup=share).segments[0].steps

    assert warmup_steps(0.07, 100) == 7  # 0.07 * 100 is above 7 in floating point
    assert warmup_steps("7%", 100) == warmup_steps("0.07", 100) == warmup_steps(7, 100) == warmup_steps("7", 100) == 7
    assert build("warmup_cosine", 200).segments[0].steps == 10  # 5% where nobody gives a warmup
    assert build("warmup_cosine", 200, 20).segments[0].steps == 20


def test_shares_that_fill_the_run_fill_it_exactly():
    for steps in range(3, 200):
        schedule = hf_sched.Schedule.lay([hf_sched.hold("50%"), hf_sched.decay("50%")], num_training_steps=steps)
        assert schedule.num_training_steps == steps


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([hf_sched.hold(8), hf_sched.decay(8)], r"hold 8 \+ decay 8 = 16 steps, but the run has .* = 10"),
        ([hf_sched.hold(3), hf_sched.decay(3)], r"= 6 steps, but the run has .* = 10"),
        ([hf_sched.hold(), hf_sched.decay()], r"only one phase may leave out its duration, received 2"),
        ([hf_sched.warmup(10), hf_sched.decay()], r"`warmup` must be shorter than the run of 10 steps"),
        ([], r"the phases take nothing = 0 steps"),
    ],
)
def test_phases_that_do_not_fit_are_errors(phases, message):
    with pytest.raises(ValueError, match=message):
        hf_sched.Schedule.lay(phases, num_training_steps=10)


def test_what_is_no_phase_is_refused():
    with pytest.raises(ValueError, match=r"`phases` must be phases .* received 'decay'"):
        hf_sched.Schedule.lay(["decay"], num_training_steps=5)


def test_a_peak_beyond_all_numbers_is_refused():
    schedule = build("cosine_restarts", 100, num_cycles=2, peak_multiplier=1e308)
    with pytest.raises(ValueError, match="leaves the range of numbers"):
        schedule.curve(peak=10.0)


def test_equal_curves_are_equal_schedules_and_print_alike():
    one, other = build("warmup_cosine", 100, warmup="10%"), build("cosine_floor", 100, 10, floor_ratio=0)
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == str(other) == "warmup 10 linear 0.0 -> peak | decay 90 cosine peak -> floor; floor 0.0 * peak"
    assert one != build("cosine_floor", 100, 11, floor_ratio=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("floor", [{"floor_ratio": 0.1}, {"min_lr": 3e-5}])
def test_the_peak_the_floor_and_no_zero_with_every_length_of_warmup(name, floor):
    for warmup in range(1, 30):
        curve = build(name, 30, warmup, **floor).curve(peak=3e-4)
        assert curve[warmup - 1] == 3e-4
        np.testing.assert_allclose(curve[:warmup], 3e-4 * np.arange(1, warmup + 1) / warmup, rtol=EXACT)
        assert curve[-1] == pytest.approx(3e-5, rel=EXACT)
        assert curve.min() > 0
