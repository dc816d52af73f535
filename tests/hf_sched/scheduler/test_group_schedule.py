"""`GroupSchedule`: resume transitions, windows of steps, saved state."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sched import Schedule
from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition

FALLING = ("decay {}", "decay {} cosine", "decay {} 1-sqrt", "decay {} to 0.2", "decay {} cosine every 3", "hold {}")
FLOORS = ("", "; floor 0.1", "; min_lr 0.001")


@st.composite
def schedules(draw) -> Schedule:
    """An optional warmup, an optional hold, and a phase that falls or holds to the end."""
    warmup, hold, last = draw(st.integers(0, 9)), draw(st.integers(0, 20)), draw(st.integers(4, 60))
    phases = [*([f"warmup {warmup}"] if warmup else []), *([f"hold {hold}"] if hold else [])]
    return Schedule.parse(
        " | ".join([*phases, draw(st.sampled_from(FALLING)).format(last)]) + draw(st.sampled_from(FLOORS))
    )


@st.composite
def transitions(draw, how: str) -> GroupSchedule:
    """A group schedule with a resume transition after the warmup."""
    schedule = draw(schedules())
    total = schedule.num_training_steps
    warmup = schedule.segments[0].steps if schedule.segments[0].kind == "warmup" else 0
    step = draw(st.integers(max(warmup - 1, 0), total - 1))
    groups = draw(st.integers(1, 3))
    rates = st.lists(st.floats(0, 2), min_size=groups, max_size=groups)
    peaks = tuple(draw(st.lists(st.floats(0.01, 1), min_size=groups, max_size=groups)))
    steps = total - step if how == "continue" else draw(st.integers(1, total - step))
    own = draw(st.sampled_from([(), (*(None,) * (groups - 1), Schedule.parse(f"decay {total} to 0.1"))]))
    return GroupSchedule(schedule, peaks, ResumeTransition(how, step, tuple(draw(rates)), steps), own=own)


def whole(group_schedule: GroupSchedule, past: int = 5) -> np.ndarray:
    return group_schedule.rates(0, group_schedule.schedule.num_training_steps + past)


def planned(group_schedule: GroupSchedule, past: int = 5) -> np.ndarray:
    return whole(GroupSchedule(group_schedule.schedule, group_schedule.peaks, own=group_schedule.own), past)


@settings(max_examples=300, deadline=None)
@given(transitions("continue"))
def test_continue_stays_between_the_previous_rate_and_the_end_of_the_new_curve(group_schedule):
    transition, rates = group_schedule.transition, whole(group_schedule)
    total = group_schedule.schedule.num_training_steps
    before, end = np.array(transition.rates), planned(group_schedule)[:, total - 1]
    np.testing.assert_array_equal(rates[:, total - 1 :], np.repeat(end[:, None], 6, axis=1))
    if transition.steps > 1:  # the last step is the end itself
        np.testing.assert_allclose(rates[:, transition.step], before, rtol=1e-14, atol=1e-17)
    after, slack = rates[:, transition.step :], 4 * np.spacing(np.maximum(before, end))[:, None]
    assert (after >= np.minimum(before, end)[:, None] - slack).all()
    assert (after <= np.maximum(before, end)[:, None] + slack).all()


@settings(max_examples=300, deadline=None)
@given(transitions("continue"))
def test_continue_scales_the_new_curve(group_schedule):
    transition, total = group_schedule.transition, group_schedule.schedule.num_training_steps
    rates, new = whole(group_schedule)[:, transition.step : total], planned(group_schedule)[:, transition.step : total]
    for before, played, curve in zip(transition.rates, rates, new, strict=True):
        end, reach = curve[-1], curve[0] - curve[-1]
        share = (curve - end) / reach if reach > 0 else np.linspace(1, 0, len(curve))  # level: a straight line
        if len(curve) > 1:
            np.testing.assert_allclose(played, end + (before - end) * share, rtol=1e-9, atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(transitions("rewarm"))
def test_rewarm_blends_linearly_and_then_equals_the_curve(group_schedule):
    transition, rates, new = group_schedule.transition, whole(group_schedule), planned(group_schedule)
    last = transition.step + transition.steps - 1
    np.testing.assert_array_equal(rates[:, last:], new[:, last:])
    np.testing.assert_array_equal(rates[:, : transition.step], new[:, : transition.step])
    before = np.array(transition.rates)[:, None]
    share = np.arange(1, transition.steps) / transition.steps
    stretch = slice(transition.step, last)
    np.testing.assert_allclose(rates[:, stretch], before * (1 - share) + new[:, stretch] * share, rtol=1e-9, atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(st.one_of(transitions("continue"), transitions("rewarm")), st.data())
def test_any_window_of_steps_and_groups_is_identical(group_schedule, data):
    all_rates = whole(group_schedule, past=10)
    first = data.draw(st.integers(0, all_rates.shape[1] - 1))
    stop = data.draw(st.integers(first + 1, all_rates.shape[1]))
    np.testing.assert_array_equal(group_schedule.rates(first, stop), all_rates[:, first:stop])
    np.testing.assert_array_equal(group_schedule.rates(first, stop, slice(0, 1)), all_rates[:1, first:stop])


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(transitions("continue"), transitions("rewarm"), st.builds(GroupSchedule, schedules(), st.just((0.3,))))
)
def test_state_survives_a_file(group_schedule):
    buffer = io.BytesIO()
    torch.save(group_schedule.state(), buffer)
    buffer.seek(0)
    again = GroupSchedule.from_state(torch.load(buffer, weights_only=True))
    assert again == group_schedule
    np.testing.assert_array_equal(whole(again), whole(group_schedule))


def test_a_group_with_its_own_schedule_follows_it_alone():
    run, own = Schedule.parse("hold 10 | decay 10; floor 0.1"), Schedule.parse("warmup 5 | decay 15 cosine")
    rates = whole(GroupSchedule(run, (1.0, 0.3, 0.3), own=(None, own, None)), past=0)
    for row, (schedule, peak) in enumerate([(run, 1.0), (own, 0.3), (run, 0.3)]):
        np.testing.assert_array_equal(rates[row], schedule.curve(peak=peak))


def test_floor_above_a_peak_names_the_group():
    with pytest.raises(ValueError, match=r"parameter group 1: `min_lr` must be at most the peak learning rate 0\.01"):
        GroupSchedule(Schedule.parse("decay 20; min_lr 0.1"), (1.0, 0.01))


def test_different_rates_before_a_resume_are_not_taken_for_equal_ones():
    for rates in ((0.2, 0.2), (0.2, 0.3)):
        resumed = GroupSchedule(Schedule.parse("decay 20"), (1.0, 1.0), ResumeTransition("rewarm", 3, rates, 5))
        assert resumed.has_equal_rates == (whole(resumed)[0] == whole(resumed)[1]).all() == (len(set(rates)) == 1)
