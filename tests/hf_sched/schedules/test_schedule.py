"""A schedule as a value: floors, steps, shares of the run, text; and its rules on cosines (see test_properties.py)."""

from __future__ import annotations

import numpy as np
import pytest

import hf_sched

EXACT = 1e-12
NAMES = ["cosine_floor", "warmup_cosine", "cosine_restarts"]
pytestmark = pytest.mark.filterwarnings("ignore:cosine_restarts:UserWarning")


def build(name: str, steps: int, trainer_warmup: int = 0, **kwargs: object) -> hf_sched.Schedule:
    return hf_sched.build(name, num_training_steps=steps, num_warmup_steps=trainer_warmup, **kwargs)


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
        schedule = hf_sched.Schedule.from_phases(
            [hf_sched.hold("50%"), hf_sched.decay("50%")], num_training_steps=steps
        )
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
        hf_sched.Schedule.from_phases(phases, num_training_steps=10)


def test_what_is_no_phase_is_refused():
    with pytest.raises(ValueError, match=r"`phases` must be phases .* received 'decay'"):
        hf_sched.Schedule.from_phases(["decay"], num_training_steps=5)


def test_a_peak_beyond_all_numbers_is_refused():
    schedule = build("cosine_restarts", 100, num_cycles=2, peak_multiplier=1e308)
    with pytest.raises(ValueError, match="leaves the range of numbers"):
        schedule.curve(peak=10.0)


def test_equal_curves_are_equal_schedules_and_print_alike():
    one, other = build("warmup_cosine", 100, warmup="10%"), build("cosine_floor", 100, 10, floor_ratio=0)
    assert one == other
    assert hash(one) == hash(other)
    assert str(one) == str(other) == "warmup 10 | decay 90 cosine"
    assert one != build("cosine_floor", 100, 11, floor_ratio=0)
    assert one != build("cosine_floor", 100, 10, floor_ratio=0.1)


def test_a_schedule_prints_in_the_phase_language_and_is_read_back():
    schedule = hf_sched.Schedule.from_phases(
        [
            hf_sched.warmup(10, "sqrt", start=0.1),
            hf_sched.hold(20),
            hf_sched.decay(30, "polynomial 2", to=0.5),
            hf_sched.restart(40, start=0.75),
        ],
        num_training_steps=100,
        floor_ratio=0.1,
    )
    text = "warmup 10 sqrt from 0.1 | hold 20 | decay 30 polynomial 2.0 to 0.5 | restart 40 from 0.75; floor 0.1"
    assert str(schedule) == repr(schedule) == text
    assert hf_sched.Schedule.parse(text) == schedule
    absolute = hf_sched.Schedule.parse("warmup 5% | decay; min_lr 1e-5", num_training_steps=100)
    assert str(absolute) == "warmup 5 | decay 95; min_lr 1e-05"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("floor", [{"floor_ratio": 0.1}, {"min_lr": 3e-5}])
def test_the_peak_the_floor_and_no_zero_with_every_length_of_warmup(name, floor):
    for warmup in range(1, 30):
        curve = build(name, 30, warmup, **floor).curve(peak=3e-4)
        assert curve[warmup - 1] == 3e-4
        np.testing.assert_allclose(curve[:warmup], 3e-4 * np.arange(1, warmup + 1) / warmup, rtol=EXACT)
        assert curve[-1] == pytest.approx(3e-5, rel=EXACT)
        assert curve.min() > 0


@pytest.mark.parametrize(("first", "stop"), [(0, 0), (9, 9), (10, 10), (15, 15), (15, 12)])
def test_no_steps_have_no_rates_wherever_they_are(first, stop):
    schedule = hf_sched.Schedule.parse("warmup 2 | decay 8")
    assert schedule.rates(first, stop, np.array([1.0, 2.0]), np.zeros(2)).shape == (2, 0)
