"""A schedule as a value: floors, equality, and wrong arguments. For the rules of all schedules see test_properties."""

from __future__ import annotations

import numpy as np
import pytest

import hf_sched
from hf_sched import ArgumentError, Schedule
from tests.helpers.catalog import build


def test_floors_are_right_in_every_group():
    absolute, ratio = build("cosine_floor", min_lr=0.001), build("cosine_floor", floor_ratio=0.1)
    assert [absolute.curve(peak=peak)[-1] for peak in (1.0, 0.01)] == [0.001, 0.001]
    np.testing.assert_allclose([ratio.curve(peak=peak)[-1] for peak in (1.0, 0.01)], [0.1, 0.001], rtol=1e-12)
    message = r"`min_lr` must be at most the peak .* 0.0001, received 0.001; `floor_ratio`"
    with pytest.raises(ArgumentError, match=message):
        absolute.lr(0, peak=1e-4)
    assert absolute.lr(99, peak=1e-3) == 1e-3


@pytest.mark.parametrize(
    ("floor", "name"),
    [
        *(({"floor_ratio": value}, "floor_ratio") for value in (2.0, "much")),
        *(({"min_lr": value}, "min_lr") for value in (-1.0, "low")),
        *(({"floor_ratio": ratio, "min_lr": 1e-5}, "min_lr") for ratio in (0.1, 0.0)),
    ],
)
def test_a_wrong_or_second_floor_is_named_without_a_registered_name(floor, name):
    # `Schedule.from_phases` is public: a `min_lr` of -1 would train at negative learning rates.
    with pytest.raises(ArgumentError) as caught:
        Schedule.from_phases([hf_sched.hold(2), hf_sched.decay()], num_training_steps=5, **floor)
    assert caught.value.name == name


@pytest.mark.parametrize("step", [-1, 1.5, "x", True, None])
def test_a_step_is_a_whole_number(step):
    with pytest.raises(ArgumentError, match="`step` must be a whole number"):
        build("cosine_floor").lr(step, peak=1.0)


def test_equal_curves_are_equal_schedules_and_print_alike():
    one, other = build("warmup_cosine", warmup="10%"), build("cosine_floor", 10, floor_ratio=0)
    assert one == other and hash(one) == hash(other)
    assert str(one) == repr(other) == "warmup 10 | decay 90 cosine"
    assert one not in (build("cosine_floor", 11, floor_ratio=0), build("cosine_floor", 10, floor_ratio=0.1))


@pytest.mark.parametrize(("first", "stop"), [(0, 0), (9, 9), (10, 10), (15, 15), (15, 12)])
def test_no_steps_have_no_rates(first, stop):
    schedule = Schedule.parse("warmup 2 | decay 8")
    assert schedule.rates(first, stop, np.array([1.0, 2.0]), np.zeros(2)).shape == (2, 0)
