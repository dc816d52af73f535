"""The guard in the Trainer stops a run whose learning rate another component sets, and leaves right runs alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

import hf_sched
from hf_sched.callbacks.guard import GUARD, LearningRateGuard
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.trainer import OURS, PEAK, STEPS, UNFUSED, WARMUP, make, two_groups

CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP).curve(peak=PEAK)


def assert_stops(model_path, folder, message: str, steps: int = 0, **given) -> None:
    """Train; an error with this message stops the run after a number of steps."""
    trainer, _ = make(model_path, folder, **{**OURS, **given})
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == steps


def ours(optimizer, steps=STEPS, **kwargs):
    return hf_sched.get_scheduler("cosine_floor", optimizer, WARMUP, steps, kwargs)


OTHER_SCHEDULERS = {
    "transformers": (
        lambda optimizer: transformers.get_scheduler("linear", optimizer, WARMUP, STEPS),
        r"requests 'cosine_floor', but a LambdaLR sets the learning rate: .*`optimizers=`",
    ),
    "another curve": (
        lambda optimizer: ours(optimizer, floor_ratio=0.3),
        r"requests the curve\n +warmup 3 .* floor 0.1\nbut the scheduler has\n +.*; floor 0.3\n",
    ),
    "another horizon": (
        lambda optimizer: ours(optimizer, 4 * STEPS),
        r"requests the curve\n +warmup 3 \| decay 9 .*\nbut the scheduler has\n +warmup 3 \| decay 45 ",
    ),
}


@pytest.mark.parametrize("scheduler", OTHER_SCHEDULERS)
def test_another_scheduler_than_the_requested_one_stops_the_run(model_path, tmp_path, scheduler):
    make_scheduler, message = OTHER_SCHEDULERS[scheduler]

    class Subclass(Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = make_scheduler(self.optimizer)
            return self.lr_scheduler

    assert_stops(model_path, tmp_path, message, cls=Subclass)


class After(TrainerCallback):
    """Interferes at the end of a step."""

    def __init__(self, interfere, step=5):
        self.interfere, self.step = interfere, step

    def on_step_end(self, args, state, control, optimizer=None, lr_scheduler=None, **kwargs):
        if state.global_step == self.step:
            self.interfere(optimizer, lr_scheduler)


def scale_second_group(optimizer, scheduler):
    optimizer.param_groups[1]["lr"] *= 1 + 1e-6


def replace_scheduler(optimizer, scheduler):
    other = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    scheduler.step = other.step


SKIPS = "of which a gradient scaler skipped 0, the scheduler 'cosine_floor' has made"
INTERFERENCE = {
    "rate": (scale_second_group, r"optimizer step 5: parameter group 1 .*: another component sets it"),
    "extra step": (
        lambda optimizer, scheduler: scheduler.step(),
        f"after 5 optimizer steps, {SKIPS} 6: another component steps it too",
    ),
    "replaced": (replace_scheduler, f"after 6 optimizer steps, {SKIPS} 5: another component prevents its steps"),
}


@pytest.mark.parametrize("what", INTERFERENCE)
@pytest.mark.filterwarnings("ignore:Detected call:UserWarning")
def test_interference_stops_the_run_at_once(model_path, tmp_path, what):
    interfere, message = INTERFERENCE[what]
    given = {"optimizers": two_groups, "callbacks": [After(interfere)]}
    assert_stops(model_path, tmp_path, message, 5 + (what == "replaced"), **given)


def test_mode_warn_logs_each_kind_once_and_off_does_nothing(model_path, tmp_path, monkeypatch, warnings_logged):
    monkeypatch.setenv(GUARD, "warn")
    trainer, _ = make(model_path, tmp_path, callbacks=[After(scale_second_group, n) for n in (5, 7, 9)], **OURS)
    trainer.train()
    (message,) = warnings_logged()
    assert message.startswith("optimizer step 5: parameter group 1")

    def step_lr(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 5)

    make(model_path, tmp_path, **OURS, optimizers=step_lr)[0].train()
    assert "a StepLR sets the learning rate" in warnings_logged()[1]
    monkeypatch.setenv(GUARD, "off")
    make(model_path, tmp_path, callbacks=[After(scale_second_group)], **OURS)[0].train()
    assert len(warnings_logged()) == 2
    monkeypatch.setenv(GUARD, "of")
    with pytest.raises(ArgumentError, match=f"`{GUARD}` must be one of error, warn, off, received 'of'"):
        make(model_path, tmp_path, **OURS)[0].train()


# Steps that a gradient scaler skips.


def train_with_scaler(model_path, folder, resume=None, **given):
    """Train with a gradient scaler that overflows at first and whenever it has grown; rates and skipped steps."""
    skipped: list[bool] = []

    class Skips(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            skipped.append(optimizer.step_was_skipped)

    trainer, recorder = make(model_path, folder, **{**OURS, **UNFUSED, **given}, callbacks=[Skips()])
    # Accelerate makes no scaler without a GPU.
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", 2.0**127, 2.0**30, 2.0**-30, growth_interval=4)
    trainer.train(resume_from_checkpoint=resume)
    return np.array(recorder.used)[:, 0], np.array(skipped)


@pytest.mark.filterwarnings("ignore:Detected call:UserWarning")
def test_skipped_steps_are_no_false_alarm_even_from_before_a_resume(model_path, tmp_path, warnings_logged):
    saving = {**OURS, "save_strategy": "steps", "save_steps": 5}
    used, skipped = train_with_scaler(model_path, tmp_path, **saving)
    steps = np.cumsum(~skipped) - ~skipped  # made before each step
    assert skipped[0] and skipped.sum() < STEPS / 2  # the number depends on the size of the gradients
    np.testing.assert_array_equal(used, CURVE[steps])
    used_after, _ = train_with_scaler(model_path, tmp_path, resume=str(tmp_path / "checkpoint-5"), **saving)
    np.testing.assert_array_equal(used_after, used[5:])
    text = f"a gradient scaler skipped {skipped.sum()} of {STEPS} optimizer steps, so the schedule 'cosine_floor' did "
    made = STEPS - skipped.sum()
    text += f"not reach its end: the last learning rate was {CURVE[made - 1]:.6g}, not {CURVE[-1]:.6g}"
    assert warnings_logged() == [text] * 2


# No false alarm.


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"optimizers": lambda model: two_groups(model, tensors=True)},
        {"max_steps": -1, "num_train_epochs": 1},
        {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {"warmup": 4, "after": "wsd"}, "warmup_steps": 0},
        {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold 1ep | decay"}, "warmup_steps": 0},
        {"lr_scheduler_type": "linear"},
    ],
    ids=["plain", "accumulation", "tensors", "an epoch", "trust ratios", "in epochs", "a built-in"],
)
@pytest.mark.filterwarnings("error::UserWarning:hf_sched")
def test_a_right_run_is_left_alone(model_path, tmp_path, given, warnings_logged):
    given = {**OURS, "max_steps": 20, **given}
    trainer, recorder = make(model_path, tmp_path, **given)
    trainer.train()
    assert len(recorder.used) == trainer.state.global_step == trainer.state.max_steps
    assert warnings_logged() == []


def test_ranks_with_different_learning_rates_stop(monkeypatch):
    def gather(of_ranks, mine):
        of_ranks[:] = [mine, (mine[0], mine[1] + 1)]

    for name, fake in (("is_initialized", lambda: True), ("get_world_size", lambda: 2), ("all_gather_object", gather)):
        monkeypatch.setattr(torch.distributed, name, fake)
    args = TrainingArguments("out", use_cpu=True, report_to="none", learning_rate=PEAK, warmup_steps=WARMUP, **OURS)
    scheduler = ours(torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=PEAK))
    state = SimpleNamespace(global_step=0, max_steps=STEPS)
    with pytest.raises(ValueError, match=r"ranks have different learning rates:\nrank 0 (?s:.*)\nrank 1 is at step"):
        LearningRateGuard().on_train_begin(args, state, None, lr_scheduler=scheduler)
