"""Trainings that receive a request to cool down while they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Trainer, TrainerCallback

import hf_sched
from hf_sched._run_files import COOLDOWN_REQUEST, write_json
from hf_sched.callbacks.cooldown_request import Request, send_request
from hf_sched.schedules.schedule import Schedule
from tests.helpers.trainer import PEAK, make

WSD = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": 10}, "max_steps": 40, "warmup_steps": 5}
COOLED = "warmup 5 | hold 10 | decay 6 1-sqrt"
"""The curve of a run that receives a request for 6 steps after step 13 and logs after step 15."""


class RequestAfter(TrainerCallback):
    """Sends a request to its own run after a step, or does something else there."""

    def __init__(self, step: int = 13, request: Request = Request(6), send: Callable[..., Any] = send_request) -> None:  # noqa: B008 (immutable)
        self.step, self.request, self.send = step, request, send

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.send(Path(args.output_dir), self.request)


def write_request(folder: Path, request: Request) -> None:
    """Write a request without the checks of the command."""
    write_json(folder / COOLDOWN_REQUEST, vars(request))


def train(
    model_path: Path, folder: Path, *callbacks: TrainerCallback, resume=None, live=True, log=True, **given: Any
) -> tuple[Trainer, np.ndarray]:
    """Train as a script does; the Trainer, and the learning rates that it used, of shape (steps, groups)."""
    live_control = [hf_sched.LiveControl()] if live else []
    logs = [hf_sched.LearningRateLog()] if log else []
    given = {**WSD, "logging_steps": 5, **given}
    trainer, recorder = make(model_path, folder, callbacks=[*callbacks, *live_control, *logs], **given)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_state()
    return trainer, np.array(recorder.used)


def curve(text: str, peak: float = PEAK) -> np.ndarray:
    return Schedule.parse(text).curve(peak=peak)
