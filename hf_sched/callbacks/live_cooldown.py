"""Live control: a running training at a constant rate accepts a request to cool down and end (`hf-sched cooldown`)."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from hf_sched._run_files import (
    COOLDOWN_DONE,
    COOLDOWN_REJECTED,
    COOLDOWN_REQUEST,
    COOLDOWN_STATUS,
    read_json,
    training_continues,
    write_json,
)
from hf_sched.callbacks.cooldown_request import Request, apply_request
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import read_schedule
from hf_sched.scheduler.schedule_lr import ScheduleLR, schedule_of

logger = logging.getLogger(__name__)

STATUS_INTERVAL = 1.0
"""Seconds between two writes of the status: a write at each log line would slow down tiny steps."""


class LiveControl(TrainerCallback):
    """Lets `hf-sched cooldown OUTPUT_DIR` end the run with a cooldown.

    At each log line rank 0 looks for a request in `output_dir`. From the next optimizer step on all ranks decay to the
    floor, and `state.max_steps` becomes the end of the cooldown, so the run finishes normally there. A request that is
    not possible changes nothing; a warning and `cooldown.refused.json` say why.

    A checkpoint from the cooldown resumes it with the same command, with or without this callback. A checkpoint from
    before it resumes the original schedule.

    Examples:
        >>> Trainer(model, args, train_dataset=data, callbacks=[hf_sched.LiveControl()])
    """

    def __init__(self) -> None:
        self._every: int | None = None
        self._status_time = -math.inf

    def on_train_begin(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, train_dataloader: Any = None, **kwargs: Any
    ) -> None:
        self._every = _steps_between_logs(args, state, train_dataloader)
        scheduler = schedule_of(lr_scheduler)
        cooldown = scheduler.group_schedule.cooldown if scheduler else None
        if state.is_world_process_zero:
            with training_continues(Path(args.output_dir)):
                _remove_old_files(Path(args.output_dir), state.global_step, cooldown is not None)
            self._write_status(args, state, scheduler)

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """At a logging step, read a request on rank 0 and apply it on all ranks."""
        if not self._every or state.global_step % self._every or state.global_step >= state.max_steps:
            return  # on all ranks alike, because the broadcast below needs all of them
        scheduler = schedule_of(lr_scheduler)
        group_schedule = self._read_request(args, state, scheduler) if state.is_world_process_zero else None
        group_schedule = _broadcast(group_schedule, args.device)
        if group_schedule is not None:
            assert scheduler is not None and group_schedule.cooldown is not None
            scheduler.set_group_schedule(group_schedule)
            scheduler.set_rates()
            state.max_steps = group_schedule.cooldown.end
        is_due = group_schedule is not None or time.monotonic() - self._status_time >= STATUS_INTERVAL
        if state.is_world_process_zero and is_due:
            self._write_status(args, state, scheduler)

    def on_train_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Stop accepting requests; a request to an interrupted run waits for its resume."""
        if state.is_world_process_zero:
            request = Path(args.output_dir, COOLDOWN_REQUEST)
            with training_continues(request):
                if state.global_step >= state.max_steps and request.exists():
                    _reject(Path(args.output_dir), state.global_step, "the run had ended")
            self._write_status(args, state, schedule_of(lr_scheduler), ended=True)

    def _read_request(self, args: Any, state: Any, scheduler: ScheduleLR | None) -> GroupSchedule | None:
        """The learning rates after a request; None if there is no request or it is not possible."""
        folder, step = Path(args.output_dir), state.global_step
        try:
            if not (folder / COOLDOWN_REQUEST).exists():
                return None
            request = Request.parse(read_json(folder / COOLDOWN_REQUEST))
            current = scheduler.group_schedule if scheduler else None
            cooled = apply_request(current, request, **_position(args, state, scheduler))
            write_json(folder / COOLDOWN_DONE, {**vars(request), "step": step, "group_schedule": cooled.state()})
        except Exception as error:  # whatever the file holds: the other ranks wait for this one
            _reject(folder, step, str(error) or type(error).__name__)
            return None
        with training_continues(folder / COOLDOWN_REQUEST):
            (folder / COOLDOWN_REQUEST).unlink()
        logger.warning("%s: %s", cooled.cooldown, cooled.schedule)
        return cooled

    def _write_status(self, args: Any, state: Any, scheduler: ScheduleLR | None, ended: bool = False) -> None:
        """Write what `hf-sched cooldown` checks before it sends a request."""
        status = {
            **_position(args, state, scheduler),
            "ended": ended,
            "every": self._every,
            "group_schedule": scheduler.group_schedule.state() if scheduler else None,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        self._status_time = time.monotonic()
        with training_continues(file := Path(args.output_dir, COOLDOWN_STATUS)):
            write_json(file, status)


def _remove_old_files(folder: Path, step: int, is_cooling: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not step:
        for file in (COOLDOWN_REQUEST, COOLDOWN_DONE, COOLDOWN_REJECTED):
            (folder / file).unlink(missing_ok=True)
    elif (folder / COOLDOWN_DONE).is_file() and not is_cooling:
        (folder / COOLDOWN_DONE).unlink()
        logger.warning(
            "the checkpoint of step %d is from before the cooldown: training continues on the original schedule; "
            "`hf-sched cooldown` can request it again",
            step,
        )


def _broadcast(group_schedule: GroupSchedule | None, device: torch.device) -> GroupSchedule | None:
    """The value of rank 0 on all ranks."""
    values = [group_schedule]
    if dist.is_available() and dist.is_initialized():
        flag = torch.tensor(float(group_schedule is not None), device=device)  # four times as fast as an object
        dist.broadcast(flag, src=0)
        if flag.item():
            dist.broadcast_object_list(values, src=0)
    return values[0]


def _reject(folder: Path, step: int, reason: str) -> None:
    logger.warning("cooldown request rejected (%s); training continues on the original schedule", reason)
    file = folder / COOLDOWN_REQUEST
    with training_continues(file):
        request = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
        write_json(folder / COOLDOWN_REJECTED, {"request": request, "step": step, "why": reason})
    with training_continues(file):
        file.unlink()


def _position(args: Any, state: Any, scheduler: ScheduleLR | None) -> dict[str, Any]:
    """Where the run is; arguments of `apply_request`."""
    skipped = state.global_step - scheduler.last_epoch if scheduler else 0
    return {"name": read_schedule(args)[0], "step": state.global_step, "skipped": skipped, "end": state.max_steps}


def _steps_between_logs(args: Any, state: Any, train_dataloader: Any) -> int | None:
    strategy = str(getattr(args.logging_strategy, "value", args.logging_strategy))
    if strategy == "steps":
        return int(state.logging_steps)
    if strategy == "epoch" and hasattr(train_dataloader, "__len__"):
        return max(math.ceil(len(train_dataloader) / args.gradient_accumulation_steps), 1)
    return None
