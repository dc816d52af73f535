"""The time that the callbacks of hf_sched take at an optimizer step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import hf_sched
from benchmarks.speed.contenders import PEAK
from hf_sched.callbacks.guard import LearningRateGuard

SCHEDULE = "cosine_floor"


def clock(folder: Path, steps: int, make: Sequence[Callable[[], TrainerCallback]], scheduled: bool) -> float:
    """Seconds per step of a loop that calls the callbacks and the scheduler as the Trainer does, without a model.

    No step logs or saves. The time of the optimizer's step is included, because callbacks register hooks there.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    args = TrainingArguments(
        str(folder),
        lr_scheduler_type=SCHEDULE,
        learning_rate=PEAK,
        max_steps=steps,
        logging_steps=10 * steps,
        use_cpu=True,
        report_to="none",
    )
    scheduler = hf_sched.get_scheduler(SCHEDULE, optimizer, 0, steps, {})
    state, control = TrainerState(max_steps=steps, logging_steps=10 * steps), TrainerControl()
    context: dict[str, Any] = dict.fromkeys(("model", "processing_class", "train_dataloader", "eval_dataloader"))
    context |= {"optimizer": optimizer, "lr_scheduler": scheduler}
    callbacks = [one() for one in make]

    def call(*events: str) -> None:
        for event in events:
            for callback in callbacks:
                getattr(callback, event)(args, state, control, **context)

    call("on_train_begin")
    began = time.thread_time()
    for _ in range(steps):
        call("on_step_begin", "on_pre_optimizer_step")
        optimizer.step()
        call("on_optimizer_step")
        if scheduled:
            scheduler.step()
        state.global_step += 1
        call("on_step_end")
    seconds = time.thread_time() - began
    call("on_train_end")
    return seconds / steps


CASES: dict[str, tuple[list[Callable[[], TrainerCallback]], bool]] = {
    "nothing": ([], False),
    "scheduler": ([], True),
    "scheduler and guard": ([LearningRateGuard], True),
    "scheduler, log and live control": ([hf_sched.LearningRateLog, hf_sched.LiveControl], True),
}
