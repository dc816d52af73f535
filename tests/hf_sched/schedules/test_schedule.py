"""A schedule as a value: learning rates, floors, text, equality. For the rules of all schedules see test_properties."""

from __future__ import annotations

import numpy as np
import pytest

import hf_sched
from hf_sched import ArgumentError, Schedule
from tests.helpers.catalogue import build

EXACT = 1e-12
NAMES = ["cosine_floor", "warmup_cosine", "cosine_restarts"]
pytestmark = pytest.mark.filterwarnings("ignore:cosine_restarts:UserWarning")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("floor", [{"floor_ratio": 0.1}, {"min_lr": 3e-5}])
def test_every_length_of_warmup_reaches_peak_and_floor_without_a_zero_step(name, floor):
    for warmup in range(1, 30):
        curve = build(name, warmup, steps=30, **floor).curve(peak=3e-4)
        assert curve[warmup - 1] == 3e-4
        np.testing.assert_allclose(curve[:warmup], 3e-4 * np.arange(1, warmup + 1) / warmup, rtol=EXACT)
        assert curve[-1] == pytest.approx(3e-5, rel=EXACT)
        assert curve.min() > 0


def test_without_a_warmup_the_first_step_is_at_the_peak():
    curve = build("cosine_floor").curve(peak=0.3)
    assert curve[0] == 0.3 > curve[1]
    assert build("cosine_floor", steps=1).curve(peak=3e-4).tolist() == [3e-4]


def test_floors_are_right_in_every_group():
    absolute, ratio = build("cosine_floor", min_lr=0.001), build("cosine_floor", floor_ratio=0.1)
    assert [absolute.curve(peak=peak)[-1] for peak in (1.0, 0.01)] == [0.001, 0.001]
    np.testing.assert_allclose([ratio.curve(peak=peak)[-1] for peak in (1.0, 0.01)], [0.1, 0.001], rtol=EXACT)


def test_a_floor_above_the_peak_is_an_error():
    schedule = build("cosine_floor", steps=10, min_lr=1e-3)
    with pytest.raises(
        ArgumentError, match=r"`min_lr` must be at most the peak .* 0.0001, received 0.001; `floor_ratio`"
    ):
        schedule.lr(0, peak=1e-4)
    assert schedule.lr(9, peak=1e-3) == 1e-3


def test_a_floor_above_a_level_of_the_curve_is_named():
    falling_peaks = {"num_cycles": 3, "peak_multiplier": 0.2}
    with pytest.raises(ArgumentError, match=r"`floor_ratio` turns the curve the wrong way: the restart .*received 0.5"):
        build("cosine_restarts", **falling_peaks, floor_ratio=0.5)
    late = build("cosine_restarts", **falling_peaks, min_lr=0.5)
    with pytest.raises(ArgumentError, match=r"`min_lr` turns the curve the wrong way: the restart .*received 0.5"):
        late.lr(0, peak=1.0)


@pytest.mark.parametrize(
    ("floor", "name"),
    [
        ({"floor_ratio": 2.0}, "floor_ratio"),
        ({"floor_ratio": "much"}, "floor_ratio"),
        ({"min_lr": -1.0}, "min_lr"),
        ({"min_lr": "low"}, "min_lr"),
        ({"min_lr": 0.1, "floor_ratio": 0.1}, "min_lr"),
    ],
)
def test_a_wrong_floor_is_named_without_a_registered_name(floor, name):
    # `Schedule.from_phases` is public: a `min_lr` of -1 would train at negative learning rates.
    with pytest.raises(ArgumentError) as caught:
        Schedule.from_phases([hf_sched.hold(2), hf_sched.decay()], num_training_steps=5, **floor)
    assert caught.value.name == name


@pytest.mark.parametrize("step", [-1, 1.5, "x", True, None])
def test_a_step_is_a_whole_number(step):
    with pytest.raises(ArgumentError, match="`step` must be a whole number"):
        build("cosine_floor").lr(step, peak=1.0)


def test_a_peak_that_overflows_is_named():
    with pytest.raises(ArgumentError, match="`peak` is too large: the restart"):
        build("cosine_restarts", num_cycles=2, peak_multiplier=1e308).curve(peak=10.0)


def test_equal_curves_are_equal_schedules_and_print_alike():
    one, other = build("warmup_cosine", warmup="10%"), build("cosine_floor", 10, floor_ratio=0)
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == repr(other) == "warmup 10 | decay 90 cosine"
    assert one != build("cosine_floor", 11, floor_ratio=0)
    assert one != build("cosine_floor", 10, floor_ratio=0.1)


@pytest.mark.parametrize(("first", "stop"), [(0, 0), (9, 9), (10, 10), (15, 15), (15, 12)])
def test_no_steps_have_no_rates(first, stop):
    schedule = Schedule.parse("warmup 2 | decay 8")
    assert schedule.rates(first, stop, np.array([1.0, 2.0]), np.zeros(2)).shape == (2, 0)
