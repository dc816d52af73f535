"""Resuming under another schedule: the report, the choices of `on_resume`, chains of resumes."""

from __future__ import annotations

import re
import textwrap
from fractions import Fraction

import pytest
import torch

import hf_sched
from hf_sched import Schedule
from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.scheduler.resume import CHOICES, OnResume, Saved, resumed, split_on_resume
from hf_sched.schedules.validation import Amount, ArgumentError, DurationUnknown

OLD = Schedule.parse("warmup 4 | decay 16 cosine; floor 0.1")


def saved_at(step: int, *peaks: float) -> Saved:
    """A checkpoint of `OLD`."""
    group_schedule = GroupSchedule(OLD, peaks)
    return Saved("old", step, group_schedule.at(step), peaks, group_schedule)


def choose(saved: Saved, schedule: str, *peaks: float, on_resume: str | None = None) -> GroupSchedule:
    choice = on_resume and OnResume.parse(on_resume)
    return resumed(saved, GroupSchedule(Schedule.parse(schedule), peaks or saved.peaks), "new", choice)


def optimizer_of(*rates: float | torch.Tensor) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        *((choice, OnResume(choice)) for choice in CHOICES),
        ("rewarm 50", OnResume("rewarm", 50)),
        ("rewarm 5%", OnResume("rewarm", Fraction(5, 100))),
        ("rewarm 1.5ep", OnResume("rewarm", Amount(Fraction(3, 2)))),
        (None, None),
    ],
)
def test_on_resume_is_parsed_and_split_from_the_arguments(text, read):
    assert split_on_resume({"floor_ratio": 0.2, "on_resume": text}) == (read, {"floor_ratio": 0.2})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rewam", "one of keep, replace, continue, rewarm, received 'rewam'; did you mean 'rewarm'?"),
        ("rewarm 0", "steps (500)"),
    ],
)
def test_an_invalid_on_resume_is_rejected(value, message):
    with pytest.raises(ValueError, match=re.escape(f"`on_resume` must be {message}")):
        OnResume.parse(value)


def test_a_rewarm_in_epochs_needs_the_steps_per_epoch():
    arguments = ("cosine_floor", optimizer_of(1.0), 0, 20, {"on_resume": "rewarm 1.5ep"})
    assert hf_sched.get_scheduler(*arguments, steps_per_epoch=6).on_resume == OnResume("rewarm", 9)
    with pytest.raises(DurationUnknown, match=r"`on_resume` is in epochs \(1.5ep\)"):
        hf_sched.get_scheduler(*arguments)


# The report.


def test_a_change_is_reported_with_the_next_rate_under_each_choice():
    with pytest.raises(ValueError) as rejected:
        choose(saved_at(9, 1.0, 0.1), "warmup 4 | decay 36; floor 0.2", 0.5, 0.05)
    assert str(rejected.value) == textwrap.dedent("""\
        the checkpoint, at step 9, was trained under another schedule.
                              checkpoint                             this run
          schedule            old                                    new
          curve               warmup 4 | decay 16 cosine; floor 0.1  warmup 4 | decay 36; floor 0.2
          peak learning rate  1, 0.1                                 0.5, 0.05
          steps               20                                     40
        The learning rate of the next step for each `on_resume` in `lr_scheduler_kwargs`:
          keep      0.722208, 0.0722208  continue on the checkpoint's curve and peaks
          replace   0.433333, 0.0433333  use the new curve from this step on
          continue  0.722208, 0.0722208  go from the current rate along the rest of the new curve to its end
          rewarm    0.433333, 0.0433333  go from the current rate to the new curve within 1 step
        Or start a new run from the checkpoint's weights, without `resume_from_checkpoint`.""")


# The choices.


def test_each_choice_gives_its_transition():
    saved, new = saved_at(9, 1.0), Schedule.parse("hold 40")
    for on_resume, transition in {
        "replace": None,
        "continue": ResumeTransition("continue", 9, saved.rates, 31),
        "rewarm": ResumeTransition("rewarm", 9, saved.rates, 1),  # 2% of 40
        "rewarm 10": ResumeTransition("rewarm", 9, saved.rates, 10),
        "rewarm 50%": ResumeTransition("rewarm", 9, saved.rates, 20),
        "rewarm 99": ResumeTransition("rewarm", 9, saved.rates, 31),  # as many as are left
    }.items():
        assert choose(saved, "hold 40", 0.5, on_resume=on_resume) == GroupSchedule(new, (0.5,), transition)
    assert choose(saved, "hold 40", 0.5, on_resume="keep") is saved.group_schedule
    for on_resume in (None, *CHOICES):  # nothing changed
        assert choose(saved, str(OLD), on_resume=on_resume) is saved.group_schedule


UNKNOWN = Saved("a schedule outside hf_sched", 9, (0.7,), (1.0,), None)


@pytest.mark.parametrize(
    ("saved", "schedule", "peaks", "choices", "why"),
    [
        (UNKNOWN, "decay 40", (1.0,), ["keep"], "the checkpoint does not hold the curve of a schedule outside"),
        (saved_at(9, 1.0), "decay 40", (1.0, 1.0), ["keep", "continue", "rewarm"], "has 1 parameter group(s), this"),
        (saved_at(12, 1.0), "decay 9", (1.0,), ["continue", "rewarm"], "the run has 9 steps, all of which are done"),
        (saved_at(9, 1.0), "warmup 20 | decay 20", (1.0,), ["continue"], "rises again in the warmup from step 9 on"),
        (saved_at(9, 1.0), "decay 20 | warmup 20", (1.0,), ["continue"], "rises again in the warmup from step 20 on"),
    ],
)
def test_an_impossible_choice_is_rejected_with_the_reason(saved, schedule, peaks, choices, why):
    for choice in choices:
        with pytest.raises(ArgumentError, match=rf"^`on_resume` cannot be '{choice}': ") as rejected:
            choose(saved, schedule, *peaks, on_resume=choice)
        assert why in rejected.value.rule
        assert rejected.value.hint == "choose another of keep, replace, continue, rewarm"


def test_continue_is_possible_after_the_last_rise():
    assert choose(saved_at(9, 1.0), "warmup 10 | decay 30", on_resume="continue").transition.steps == 31
