"""Resumes and live cooldowns of schedules whose horizon is not the length of the run, or that have none."""

from __future__ import annotations

import pytest
import torch

import hf_sched
from hf_sched import Schedule
from hf_sched.callbacks.cooldown_request import Request, apply_request, decay_now
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule
from hf_sched.scheduler.resume import OnResume, Saved, ScheduleChanged, resumed

PEAK = 0.5


def schedule_of(text: str, steps: int | None) -> GroupSchedule:
    return GroupSchedule(hf_sched.build(text, num_training_steps=steps), (PEAK,))


def saved_at(group_schedule: GroupSchedule, step: int) -> Saved:
    state = {"name": "old", **group_schedule.state(), "last_epoch": step}
    return Saved.read(state)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("wsd:horizon=40", 10), ("wsd:horizon=40", 90)),
        (("wsd:horizon=40", None), ("wsd", 40)),
        (("decay; horizon 2x", 20), ("decay; horizon 40", 7)),
        (("warmup 5 | hold", None), ("warmup 5 | hold", 90)),
        (("warmup 5 | hold", 10), ("warmup 5 | hold", 90)),
        (("decay 10 | hold", 30), ("decay; horizon 10", 20)),
    ],
)
def test_the_same_curve_in_a_run_of_another_length_needs_no_choice(before, after):
    old, new = schedule_of(*before), schedule_of(*after)
    found = resumed(saved_at(old, 6), new, "new", None)
    assert found.schedule.num_training_steps == new.schedule.num_training_steps
    for steps in (6, 200):
        assert found.rates(0, steps).tolist() == old.rates(0, steps).tolist() == new.rates(0, steps).tolist()
    # A transition or a cooldown of the checkpoint continues.
    cooled = apply_request(schedule_of("warmup 5 | hold", 90), Request(4), name="x", step=9, skipped=0, end=90)
    found = resumed(saved_at(cooled, 11), schedule_of("warmup 5 | hold", after[1]), "new", None)
    assert found.rates(0, 20).tolist() == cooled.rates(0, 20).tolist()
    assert found.requested.num_training_steps == after[1] and found.requested.has_same_curve(cooled.requested)


CHANGED = [("wsd:horizon=40", "wsd:horizon=41"), ("warmup 5 | hold", "warmup 6 | hold")]


@pytest.mark.parametrize(("before", "after"), CHANGED)
def test_another_curve_needs_a_choice_and_an_unknown_end_allows_all_but_continue(before, after):
    old, new = saved_at(schedule_of(before, 90), 7), schedule_of(after, None)
    with pytest.raises(ScheduleChanged) as caught:
        resumed(old, new, "new", None)
    assert {row[0]: row[1] for row in caught.value.choices}["continue"] == "-"
    assert ("steps", "90", "unknown") in caught.value.changes
    found = resumed(old, new, "new", OnResume.parse("rewarm 5"))
    assert found.rates(12, 100).tolist() == new.rates(12, 100).tolist()
    with pytest.raises(ValueError, match="a share of a run whose length is unknown; write steps"):
        resumed(old, new, "new", OnResume.parse("rewarm"))
    assert OnResume.parse("rewarm 64 samples").duration.unit == "samples"


def test_continue_ends_with_the_run_on_a_longer_horizon():
    old, new = saved_at(schedule_of("hold", 100), 10), schedule_of("decay; horizon 100", 50)
    found = resumed(old, new, "new", OnResume("continue"))
    rates = found.rates(10, 60)[0]
    assert (rates[0], rates[39]) == (PEAK, new.at(49)[0]) and (rates[:-1] >= rates[1:]).all()
    # A restart after the end of the run is no obstacle.
    assert resumed(old, schedule_of("decay 60 | restart; horizon 100", 50), "new", OnResume("continue"))


@pytest.mark.parametrize("text", ["warmup 2 | decay 8 to 0.5", "warmup 2 | hold 8 at 0.5"])
def test_a_cooldown_may_begin_at_the_level_that_is_kept_after_the_horizon(text):
    for steps in (None, 90):
        planned = schedule_of(f"{text}; horizon 10", steps)
        cooled = apply_request(planned, Request(5, "linear"), name="x", step=20, skipped=0, end=90)
        assert (
            cooled.at(19) == (PEAK / 2,)
            and cooled.at(24) == (0.0,)
            and cooled.cooldown == Cooldown(20, 5, str(planned.schedule), planned=steps)
        )
        assert GroupSchedule.from_state(cooled.state()) == cooled
        assert decay_now(planned, Request(5, "linear"), step=20, skipped=0).at(24) == (0.0,)
        early = decay_now(planned, Request(5, "linear"), step=6, skipped=0)
        assert early.at(10) == (0.0,)


def test_a_scheduler_without_a_length_steps_without_a_warning_and_saves_itself(recwarn):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = hf_sched.get_scheduler("warmup 5 | hold", optimizer, None, None)
    for _ in range(40):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [PEAK] and not recwarn.list
    assert scheduler.group_schedule.phase_at(2) == ("warmup", 2)
    assert scheduler.group_schedule.phase_at(30) == ("hold", None)
    state = scheduler.state_dict()
    again = hf_sched.get_scheduler("warmup 5 | hold", optimizer, None, None)
    again.load_state_dict(state)
    assert again.state_dict() == state and again.schedule == Schedule.parse(state["schedule"])
    bounded = schedule_of("decay; horizon 30", 10)
    assert [bounded.phase_at(step) for step in (3, 9)] == [("decay", 6), ("decay", 0)]
    assert schedule_of("decay; horizon 5", 10).phase_at(7) == ("hold", 2)
