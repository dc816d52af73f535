"""The guard in the Trainer: whatever else sets the learning rate stops the run, and nothing that is right does."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

import hf_sched
import hf_sched.scheduler.group_schedule
from hf_sched.callbacks.guard import LearningRateGuard
from tests.helpers.trainer import OURS, PEAK, STEPS, UNFUSED, WARMUP, make, two_groups

CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP).curve(peak=PEAK)


def refused(model_path, folder, message: str, steps: int = 0, **given) -> None:
    """Train; it stops with this message before optimizer step number `steps`."""
    trainer, _ = make(model_path, folder, **{**OURS, **given})
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == steps


# Another scheduler than the one requested.


def test_a_scheduler_passed_in_by_hand_is_refused(model_path, tmp_path):
    def by_hand(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        return optimizer, transformers.get_scheduler("linear", optimizer, WARMUP, STEPS)

    refused(
        model_path, tmp_path, r"asks for 'cosine_floor', but .* set by a LambdaLR: .*`optimizers=`", optimizers=by_hand
    )


@pytest.mark.parametrize(
    ("kwargs", "steps", "message"),
    [
        ({"floor_ratio": 0.3}, STEPS, r"asks for the curve\n +warmup 3 .* floor 0.1\nbut .* plays\n +.*; floor 0.3\n"),
        ({}, 4 * STEPS, f"in force ends after {4 * STEPS} steps, but the run has {STEPS}"),
    ],
    ids=["another curve", "another horizon"],
)
@pytest.mark.parametrize("way", ["by hand", "by a subclass"])
def test_one_of_our_schedules_that_is_not_the_one_asked_for_is_refused(
    model_path, tmp_path, way, kwargs, steps, message
):
    def scheduler_on(optimizer):
        return hf_sched.get_scheduler("cosine_floor", optimizer, WARMUP, steps, kwargs)

    def by_hand(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        return optimizer, scheduler_on(optimizer)

    class Subclass(Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = scheduler_on(self.optimizer)
            return self.lr_scheduler

    given = {"optimizers": by_hand} if way == "by hand" else {"cls": Subclass}
    refused(model_path, tmp_path, message, **given)


def test_a_subclass_that_builds_a_schedule_of_torchs_is_refused(model_path, tmp_path):
    class Subclass(Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5)
            return self.lr_scheduler

    refused(model_path, tmp_path, r"set by a StepLR: .*a subclass \(`create_scheduler`\)", cls=Subclass)


# Someone else at the learning rate.


class Meddler(TrainerCallback):
    """Does something at the end of step 4."""

    def __init__(self, what):
        self.what = what

    def on_step_end(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        if state.global_step == 5:
            self.what(optimizer, lr_scheduler)


def test_a_callback_that_sets_the_rate_is_refused_at_once(model_path, tmp_path):
    def meddle(optimizer, scheduler):
        optimizer.param_groups[1]["lr"] *= 1 + 1e-15

    message = r"optimizer step 5: parameter group 1 is about to train at a learning rate of .*: something else sets it"
    refused(model_path, tmp_path, message, 5, callbacks=[Meddler(meddle)])


@pytest.mark.filterwarnings("ignore:Detected call:UserWarning")
def test_a_second_step_of_the_schedule_is_refused_at_once(model_path, tmp_path):
    message = "after 5 optimizer steps the schedule 'cosine_floor' has made 6: something steps it twice"
    refused(model_path, tmp_path, message, 5, callbacks=[Meddler(lambda optimizer, scheduler: scheduler.step())])


# Steps that a gradient scaler skips.


def train_with_scaler(model_path, folder, resume=None, **given):
    """Train with a real gradient scaler whose scale overflows at first, and again whenever it has grown.

    The rates, which steps were skipped, and what was warned of.
    """
    skipped: list[bool] = []

    class Skips(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            skipped.append(optimizer.step_was_skipped)

    trainer, recorder = make(model_path, folder, **{**OURS, **UNFUSED, **given}, callbacks=[Skips()])
    # Without a GPU, Accelerate makes none.
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", 2.0**127, 2.0**30, 2.0**-30, growth_interval=4)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        trainer.train(resume_from_checkpoint=resume)
    return (
        np.array(recorder.used)[:, 0],
        np.array(skipped),
        [str(w.message) for w in warned if "gradient scaler" in str(w.message)],
    )


def test_skipped_steps_are_told_of_at_the_end(model_path, tmp_path):
    used, skipped, warned = train_with_scaler(model_path, tmp_path)
    steps = np.cumsum(~skipped) - ~skipped  # that were made before each
    count = int(skipped.sum())
    assert skipped[0]
    assert 1 <= count < STEPS / 2  # how often the scale overflows depends on the size of the gradients
    np.testing.assert_array_equal(used, CURVE[steps])
    assert warned == [
        f"a gradient scaler skipped {count} of 12 optimizer steps, so that the schedule 'cosine_floor' fell short: "
        f"it ended at a learning rate of {CURVE[STEPS - 1 - count]:.6g}, not {CURVE[11]:.6g}"
    ]


def test_steps_skipped_before_a_resume_are_told_of_too(model_path, tmp_path):
    saving = {**OURS, "save_strategy": "steps", "save_steps": 5}
    used, skipped, warned = train_with_scaler(model_path, tmp_path, **saving)
    used_after, skipped_after, warned_after = train_with_scaler(
        model_path, tmp_path, resume=str(tmp_path / "checkpoint-5"), **saving
    )
    assert skipped_after.sum() < skipped.sum()
    np.testing.assert_array_equal(used_after, used[5:])
    assert warned_after == warned


def test_without_a_schedule_of_ours_nothing_is_said_of_skipped_steps(model_path, tmp_path):
    _, skipped, warned = train_with_scaler(model_path, tmp_path, lr_scheduler_type="cosine")
    assert skipped.any()
    assert warned == []


@pytest.mark.parametrize("scaled", [False, True])
def test_a_schedule_that_is_not_stepped_is_refused_at_once_and_not_taken_for_skipped_steps(
    model_path, tmp_path, scaled
):
    class Stubborn(TrainerCallback):
        def on_optimizer_step(self, args, state, control, lr_scheduler=None, **kwargs):
            if state.global_step == 7:
                lr_scheduler.step = lambda: None

    trainer, _ = make(model_path, tmp_path, **OURS, **UNFUSED, callbacks=[Stubborn()])
    if scaled:
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", 2.0**127, backoff_factor=2.0**-30)
    skips = r"a gradient scaler skipped (\d)" if scaled else "no gradient scaler skipped any"
    message = rf"after 8 optimizer steps the schedule 'cosine_floor' has made (\d), and {skips}: something keeps it"
    with pytest.raises(ValueError, match=message) as refused:
        trainer.train()
    made, *skipped = map(int, re.search(message, str(refused.value)).groups())
    assert made + sum(skipped) == 7 and all(skipped)
    assert trainer.state.global_step == 8


# No false alarm.


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"optimizers": two_groups},
        {"optimizers": lambda model: two_groups(model, tensors=True)},
        {"max_steps": -1, "num_train_epochs": 1},
        {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {"warmup": 4, "after": "wsd"}, "warmup_steps": 0},
        {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold 1ep | decay"}, "warmup_steps": 0},
        {"lr_scheduler_type": "linear"},
    ],
    ids=["plain", "accumulation", "two groups", "tensors", "an epoch", "trust ratios", "in epochs", "a built-in"],
)
@pytest.mark.filterwarnings("error::UserWarning:hf_sched")
def test_a_right_run_is_left_alone(model_path, tmp_path, given):
    given = {**OURS, "max_steps": 20, **given}
    trainer, recorder = make(model_path, tmp_path, **given)
    trainer.train()
    assert len(recorder.used) == trainer.state.global_step == trainer.state.max_steps


@pytest.mark.filterwarnings("error::UserWarning:hf_sched")
def test_a_trainer_may_train_twice_stop_early_and_resume(model_path, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 7

    saving = {**OURS, "save_strategy": "steps", "save_steps": 5}
    trainer, _ = make(model_path, tmp_path, callbacks=[Stop()], **saving)
    trainer.train()
    trainer.remove_callback(Stop)
    trainer.train()
    resumed, recorder = make(model_path, tmp_path, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    np.testing.assert_array_equal(np.array(recorder.used)[:, 0], CURVE[5:])


# On all processes the same.


@pytest.mark.parametrize(("others", "agree"), [("same", True), ("curve", False), ("step", False)])
def test_processes_that_have_different_rates_stop(model_path, tmp_path, monkeypatch, others, agree):
    def gather(everybodys, mine):
        group_schedule, step = mine
        other = hf_sched.scheduler.group_schedule.GroupSchedule(
            hf_sched.Schedule.parse(f"decay {STEPS}"), group_schedule.peaks
        )
        everybodys[:] = [mine, {"same": mine, "curve": (other, step), "step": (group_schedule, step + 1)}[others]]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    args = TrainingArguments("out", use_cpu=True, report_to="none", learning_rate=PEAK, warmup_steps=WARMUP, **OURS)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=PEAK)
    scheduler = hf_sched.get_scheduler("cosine_floor", optimizer, WARMUP, STEPS)
    guard, state = LearningRateGuard(), SimpleNamespace(global_step=0, max_steps=STEPS)
    if agree:
        guard.on_train_begin(args, state, None, lr_scheduler=scheduler)
        assert guard.scheduler is scheduler
    else:
        with pytest.raises(
            ValueError, match=r"processes have different learning rates: rank 0 (?s:.*)\nrank 1 at step"
        ):
            guard.on_train_begin(args, state, None, lr_scheduler=scheduler)
