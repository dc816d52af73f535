"""Resuming under another schedule: what is said, what can be chosen, what cannot, and what goes on."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_sched
from hf_sched import Schedule, ScheduleLR
from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.scheduler.resume import CHOICES, OnResume, Saved, resumed, split_on_resume
from hf_sched.schedules.validation import ArgumentError, Epochs, EpochsUnknown

OLD = Schedule.parse("warmup 4 | decay 16 cosine; floor 0.1")


def saved_of(schedule: str | Schedule, step: int, *peaks: float) -> Saved:
    group_schedule = GroupSchedule(Schedule.parse(schedule) if isinstance(schedule, str) else schedule, peaks)
    return Saved("old", step, tuple(group_schedule.rates(step, step + 1)[:, 0].tolist()), peaks, group_schedule)


def choose(saved: Saved, schedule: str, *peaks: float, on_resume: str | None = None) -> GroupSchedule:
    choice = on_resume and OnResume.parse(on_resume)
    return resumed(saved, GroupSchedule(Schedule.parse(schedule), peaks or saved.peaks), "new", choice)


def optimizer_of(*rates: float | torch.Tensor) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates])


def through_a_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


class Run:
    """A loop of one's own; its checkpoint goes through a file."""

    def __init__(self, schedule: str, *peaks: float, on_resume: str | None = None, state: dict | None = None) -> None:
        self.optimizer = optimizer_of(*peaks)
        self.scheduler = ScheduleLR(self.optimizer, Schedule.parse(schedule), name="run", on_resume=on_resume)
        if state is not None:
            self.scheduler.load_state_dict(through_a_file(state))

    def play(self, steps: int) -> np.ndarray:
        used = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(steps):
                used.append([group["lr"] for group in self.optimizer.param_groups])
                self.optimizer.step()
                self.scheduler.step()
        return np.array(used).T

    @property
    def state(self) -> dict:
        return self.scheduler.state_dict()


# What may be written.


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("keep", OnResume("keep")),
        ("replace", OnResume("replace")),
        ("continue", OnResume("continue")),
        ("rewarm", OnResume("rewarm", Fraction(2, 100))),
        ("rewarm 50", OnResume("rewarm", 50)),
        ("rewarm 5%", OnResume("rewarm", Fraction(5, 100))),
        ("rewarm 0.05", OnResume("rewarm", Fraction(5, 100))),
        ("rewarm 1.5ep", OnResume("rewarm", Epochs(Fraction(3, 2)))),
    ],
)
def test_a_choice_is_read(text, read):
    assert OnResume.parse(text) == read
    assert split_on_resume({"floor_ratio": 0.2, "on_resume": text}) == (read, {"floor_ratio": 0.2})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rewam", "received 'rewam'; did you mean 'rewarm'?"),
        ("keep 5", "received 'keep 5'; did you mean 'keep'?"),
        ("rewarm 5 6", "received 'rewarm 5 6'"),
        ("", "received ''."),
        (5, "received 5."),
        (True, "received True."),
    ],
)
def test_what_is_no_choice_is_refused(value, message):
    with pytest.raises(
        ValueError, match=re.escape("`on_resume` must be one of keep, replace, continue, rewarm, " + message)
    ):
        OnResume.parse(value)


@pytest.mark.parametrize("duration", ["0", "-5", "1.5", "soon", "200%"])
def test_a_rewarm_of_no_duration_is_refused(duration):
    with pytest.raises(ValueError, match=rf"`on_resume` must be a number of steps .*, above 0, received '{duration}'"):
        OnResume.parse(f"rewarm {duration}")


def test_no_choice_leaves_the_arguments_alone():
    assert split_on_resume(None) == (None, {})
    assert split_on_resume({"num_cycles": 2}) == (None, {"num_cycles": 2})


@pytest.mark.parametrize("name", hf_sched.available())
def test_every_schedule_takes_a_choice_and_does_not_take_it_for_an_argument_of_its_own(name):
    with pytest.raises(ValueError, match="`on_resume` must be one of"):
        hf_sched.get_scheduler(name, optimizer_of(1.0), 0, 20, {"on_resume": "nothing"})


# What is said.


def test_a_change_is_shown_with_the_next_rate_under_each_choice():
    with pytest.raises(ValueError) as refused:
        choose(saved_of(OLD, 9, 1.0, 0.1), "warmup 4 | decay 36; floor 0.2", 0.5, 0.05)
    assert str(refused.value) == textwrap.dedent("""\
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


@pytest.mark.parametrize(
    ("schedule", "peaks", "rows"),
    [
        ("warmup 4 | decay 16 cosine; floor 0.2", (1.0,), ["schedule", "curve"]),
        ("warmup 4 | decay 16 cosine; floor 0.1", (0.5,), ["schedule", "peak learning rate"]),
        ("warmup 4 | decay 20 cosine; floor 0.1", (1.0,), ["schedule", "curve", "steps"]),
        ("warmup 4 | decay 16 cosine; floor 0.1", (1.0, 1.0), ["schedule", "parameter groups"]),
    ],
)
def test_only_what_changed_is_shown(schedule, peaks, rows):
    with pytest.raises(ValueError) as refused:
        choose(saved_of(OLD, 9, 1.0), schedule, *peaks)
    table = str(refused.value).split("The learning rate of the next step")[0].splitlines()[2:]
    assert [line.strip().split("  ")[0] for line in table] == rows


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["decay 40", "hold 40 at 0.5", "warmup 4 | decay 6", "warmup 30 | decay 5", "hold 5 | restart 35"]),
    st.integers(0, 19),
    st.lists(st.sampled_from([1.0, 0.25]), min_size=1, max_size=2),
)
def test_what_the_table_promises_is_what_the_choice_does(schedule, step, peaks):
    saved = saved_of(OLD, step, 1.0)
    with pytest.raises(ValueError) as refused:
        choose(saved, schedule, *peaks)
    for choice in CHOICES:
        cells = re.search(rf"^  {choice} +(-|[\d.e, -]*\d)  +(.*)$", str(refused.value), re.MULTILINE)
        try:
            group_schedule = choose(saved, schedule, *peaks, on_resume=choice)
        except ValueError as error:
            assert cells[1] == "-"
            assert cells[2] in str(error)
        else:
            shown = [float(number) for number in cells[1].split(", ")]
            np.testing.assert_allclose(
                group_schedule.rates(step, step + 1)[:, 0], shown * (len(peaks) // len(shown)), rtol=1e-5
            )


# What the choices do, and where they cannot.


def test_keep_goes_on_with_the_checkpoints_curve_and_peaks():
    saved = saved_of(OLD, 9, 1.0)
    assert choose(saved, "hold 40", 0.5, on_resume="keep") is saved.group_schedule


def test_replace_is_the_new_curve():
    group_schedule = choose(saved_of(OLD, 9, 1.0), "hold 40", 0.5, on_resume="replace")
    assert group_schedule == GroupSchedule(Schedule.parse("hold 40"), (0.5,))


def test_continue_and_rewarm_join_at_the_present_rate():
    saved = saved_of(OLD, 9, 1.0)
    for on_resume, transition in {
        "continue": ResumeTransition("continue", 9, saved.rates, 31),
        "rewarm": ResumeTransition("rewarm", 9, saved.rates, 1),  # 2% of 40
        "rewarm 10": ResumeTransition("rewarm", 9, saved.rates, 10),
        "rewarm 50%": ResumeTransition("rewarm", 9, saved.rates, 20),
        "rewarm 99": ResumeTransition("rewarm", 9, saved.rates, 31),  # as many as are left
    }.items():
        assert choose(saved, "hold 40", 0.5, on_resume=on_resume).transition == transition


UNKNOWN = Saved("a schedule outside hf_sched", 9, (0.7,), (1.0,), None)


@pytest.mark.parametrize(
    ("saved", "schedule", "peaks", "choice", "why"),
    [
        (UNKNOWN, "decay 40", (1.0,), "keep", "the checkpoint does not hold the curve of a schedule outside"),
        (saved_of(OLD, 9, 1.0), "decay 40", (1.0, 1.0), "keep", "has 1 parameter group(s), this run 2"),
        (saved_of(OLD, 9, 1.0), "decay 40", (1.0, 1.0), "continue", "has 1 parameter group(s), this run 2"),
        (saved_of(OLD, 9, 1.0), "decay 40", (1.0, 1.0), "rewarm", "has 1 parameter group(s), this run 2"),
        (saved_of(OLD, 9, 1.0), "decay 9", (1.0,), "continue", "the run has 9 steps, all of which are done"),
        (saved_of(OLD, 12, 1.0), "decay 9", (1.0,), "rewarm", "the run has 9 steps, all of which are done"),
        (saved_of(OLD, 9, 1.0), "warmup 20 | decay 20", (1.0,), "continue", "rises again in the warmup from step 9 on"),
        (
            saved_of(OLD, 9, 1.0),
            "decay 20 | restart 20",
            (1.0,),
            "continue",
            "rises again in the restart from step 20 on",
        ),
        (
            saved_of(OLD, 9, 1.0),
            "decay 20 | warmup 20",
            (1.0,),
            "continue",
            "rises again in the warmup from step 20 on",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_says_why(saved, schedule, peaks, choice, why):
    with pytest.raises(ArgumentError, match=rf"^`on_resume` cannot be '{choice}': ") as rejected:
        choose(saved, schedule, *peaks, on_resume=choice)
    assert why in rejected.value.rule
    assert rejected.value.hint == "choose another of keep, replace, continue, rewarm"


@pytest.mark.parametrize("schedule", ["warmup 10 | decay 30", "decay 9 | restart 31", "hold 10 | decay 30"])
def test_a_rise_that_is_over_does_not_stand_in_the_way_of_continue(schedule):
    assert choose(saved_of(OLD, 9, 1.0), schedule, on_resume="continue").transition.steps == 31


@pytest.mark.parametrize("on_resume", [None, *CHOICES])
def test_where_nothing_changed_any_choice_goes_on(on_resume):
    saved = saved_of(OLD, 9, 1.0, 0.1)
    assert choose(saved, str(OLD), on_resume=on_resume) is saved.group_schedule


# States: of other schedulers, of before, of joined runs.


def test_a_foreign_state_tells_step_and_rates():
    theirs = optimizer_of(1.0, 0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, lambda step: 0.9**step)
    for _ in range(9):
        theirs.step()
        scheduler.step()
    before = [group["lr"] for group in theirs.param_groups]
    with pytest.raises(ValueError, match=r"\n  keep +- .*does not hold the curve"):
        Run("hold 40", 1.0, 0.1, state=scheduler.state_dict())
    run = Run("decay 40; floor 0.1", 1.0, 0.1, on_resume="continue", state=scheduler.state_dict())
    used = run.play(31)
    np.testing.assert_allclose(used[:, 0], before, rtol=1e-14)
    np.testing.assert_allclose(used[:, -1], [0.1, 0.01], rtol=1e-14)


@pytest.mark.parametrize("state", [{}, {"last_epoch": 5}, {"last_epoch": None, "_last_lr": [1.0]}])
def test_a_state_that_says_nothing_is_refused(state):
    with pytest.raises(ValueError, match=r"hf_sched cannot read the checkpoint.*: start a new run from its weights"):
        Run("hold 40", 1.0, state=state)


@pytest.mark.parametrize("change", ["learning rate", "schedule"])
@pytest.mark.parametrize("on_resume", [*CHOICES, "rewarm 6"])
@pytest.mark.parametrize("asked_again", [True, False], ids=["same arguments", "without the choice"])
def test_a_joined_run_goes_on_bit_for_bit(change, on_resume, asked_again):
    peaks = (0.5, 0.05) if change == "learning rate" else (1.0, 0.1)
    requested = str(OLD) if change == "learning rate" else "warmup 4 | hold 10 | decay 16 cosine; floor 0.2"
    first = Run(str(OLD), 1.0, 0.1)
    first.play(9)
    second = Run(requested, *peaks, on_resume=on_resume, state=first.state)
    second.play(3)
    state = second.state
    rest = second.play(20)
    if on_resume == "keep" and not asked_again:
        with pytest.raises(ValueError, match="trained under another schedule"):
            Run(requested, *peaks, state=state)
    else:
        again = Run(requested, *peaks, on_resume=on_resume if asked_again else None, state=state)
        np.testing.assert_array_equal(again.play(20), rest)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["keep", "replace", "continue", "rewarm", "rewarm 3", "rewarm 10"]), min_size=2, max_size=3
    ),
    st.lists(st.integers(1, 6), min_size=3, max_size=3),
)
def test_changes_follow_one_another(choices, steps):
    run = Run("warmup 4 | decay 60 cosine; floor 0.1", 1.0, 0.1)
    run.play(4)
    peaks = (1.0, 0.1)
    for number, (choice, count) in enumerate(zip(choices, steps, strict=False), 1):
        expected = run.scheduler.group_schedule.rates(run.scheduler.last_epoch, run.scheduler.last_epoch + 1)[:, 0]
        run.play(count)
        state, here = run.state, np.array([group["lr"] for group in run.optimizer.param_groups])
        peaks = tuple(peak / 2 for peak in peaks)
        run = Run(f"warmup 4 | decay {60 + 10 * number}", *peaks, on_resume=choice, state=state)
        first = np.array([group["lr"] for group in run.optimizer.param_groups])
        if choice in ("keep", "continue"):
            np.testing.assert_allclose(first, here, rtol=1e-14)
        elif choice == "replace" or run.scheduler.group_schedule.transition.steps == 1:
            np.testing.assert_array_equal(
                first, [run.scheduler.requested.lr(state["last_epoch"], peak=p) for p in peaks]
            )
        else:  # on its way
            new = np.array([run.scheduler.requested.lr(state["last_epoch"], peak=peak) for peak in peaks])
            np.testing.assert_allclose(
                first, here + (new - here) / run.scheduler.group_schedule.transition.steps, rtol=1e-14
            )
        assert np.isfinite(expected).all()


def test_the_rate_is_right_at_once_in_tensors_too():
    first = Run(str(OLD), 1.0)
    first.play(9)
    optimizer = optimizer_of(torch.tensor(0.5, dtype=torch.float64))
    held = optimizer.param_groups[0]["lr"]
    scheduler = ScheduleLR(optimizer, OLD, on_resume="continue")
    scheduler.load_state_dict(first.state)
    assert optimizer.param_groups[0]["lr"] is held
    assert float(held) == pytest.approx(OLD.lr(9, peak=1.0), rel=1e-14)


def test_what_is_refused_changes_nothing():
    first = Run(str(OLD), 1.0)
    first.play(9)
    run = Run("hold 40", 0.5)
    before = run.state
    with pytest.raises(ValueError, match="trained under another schedule"):
        run.scheduler.load_state_dict(first.state)
    assert run.state == before
    assert not run.scheduler.resumed
    assert run.optimizer.param_groups[0]["lr"] == 0.5


def test_a_rewarm_in_epochs_needs_to_know_them():
    scheduler = hf_sched.get_scheduler(
        "cosine_floor", optimizer_of(1.0), 0, 20, {"on_resume": "rewarm 1.5ep"}, steps_per_epoch=6
    )
    assert scheduler.on_resume == OnResume("rewarm", 9)
    message = r"`on_resume` is in epochs \(1.5ep\), but the number of steps per epoch is unknown"
    with pytest.raises(EpochsUnknown, match=message):
        hf_sched.get_scheduler("cosine_floor", optimizer_of(1.0), 0, 20, {"on_resume": "rewarm 1.5ep"})


def test_beyond_a_kept_curve_and_beyond_the_run_are_told_apart():
    first = Run(str(OLD), 1.0)
    first.play(9)
    run = Run("hold 25", 1.0, on_resume="keep", state=first.state)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(25):
            run.optimizer.step()
            run.scheduler.step()
    said = [str(w.message) for w in warned]
    assert [text.split(",")[0].split(";")[0] for text in said] == [
        "run: the checkpoint's curve",
        "run: stepped beyond its 25 steps",
    ]
    assert run.optimizer.param_groups[0]["lr"] == OLD.lr(19, peak=1.0)


def test_a_new_peak_is_the_groups_initial_rate():
    first = Run(str(OLD), 1.0, 0.1)
    first.play(9)
    run = Run(str(OLD), 0.5, 0.05, on_resume="continue")
    run.optimizer.load_state_dict(first.optimizer.state_dict())  # brings the old ones, as a Trainer does
    run.scheduler.load_state_dict(through_a_file(first.state))
    assert [group["initial_lr"] for group in run.optimizer.param_groups] == [0.5, 0.05]
