"""Live control: a run at a constant rate is told, while it runs, to cool down now and end (`hf-sched cooldown`)."""

from __future__ import annotations

import math
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm.auto import tqdm
from transformers import TrainerCallback

from hf_sched._run_files import (
    COOLDOWN_DONE,
    COOLDOWN_REJECTED,
    COOLDOWN_REQUEST,
    COOLDOWN_STATUS,
    read_json,
    write_json,
)
from hf_sched.callbacks.cooldown import Request, cool
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.schedule_lr import ScheduleLR, schedule_of

# How often the run says where it is: a file written at each look would slow tiny steps down.
SECONDS = 1.0


class LiveControl(TrainerCallback):
    """Lets `hf-sched cooldown OUTPUT_DIR` end the run with a cooldown. For `Trainer(callbacks=[...])`.

    After each `logging_steps` (with `logging_strategy: epoch`, each epoch) the first process looks for a request in
    `output_dir`; with `logging_strategy: no` none does. From the next optimizer step on all processes cool down, and
    `state.max_steps` becomes the end of that: evaluated, saved and reported as a run that is through. A request that
    cannot be met changes nothing: a warning says why, as does `cooldown.refused.json`.

    A checkpoint from the cooldown goes on with it, by the same command, whether or not this callback is there; one from
    before it goes on as planned.
    """

    def __init__(self) -> None:
        self._every: int | None = None
        self._said = -math.inf
        self._share = 1.0
        """Of the run that was planned, what it now is."""

    def on_train_begin(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, train_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Listen; settle what was told to an earlier part of the run, or to another run here."""
        self._every = _steps_between_looks(args, state, train_dataloader)
        scheduler = schedule_of(lr_scheduler)
        told = (
            scheduler is not None and scheduler.group_schedule.cooldown is not None
        )  # and the guard has seen to `max_steps`
        self._share = state.max_steps / scheduler.requested.num_training_steps if scheduler and told else 1.0
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if not state.global_step:
            for left in (COOLDOWN_DONE, COOLDOWN_REJECTED):
                (folder / left).unlink(missing_ok=True)
            if (folder / COOLDOWN_REQUEST).exists():
                _refuse(folder, state, "it was there before the run began")
        elif (folder / COOLDOWN_DONE).is_file() and not told:
            step = read_json(folder / COOLDOWN_DONE)["step"]
            (folder / COOLDOWN_DONE).unlink()
            warnings.warn(
                f"the run was told at step {step} to cool down, but its resume at step {state.global_step} knows "
                "nothing of that, and it goes on as planned: `hf-sched cooldown` may tell it again",
                UserWarning,
                stacklevel=2,
            )
        self._say_where(args, state, scheduler)

    def correct(self, logs: dict[str, Any]) -> None:
        """Set right what the Trainer is about to log of its speed: it counts the samples of the run that was planned.

        hf_sched calls this.
        """
        if "train_samples_per_second" in logs:
            logs["train_samples_per_second"] *= self._share

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Look, and cool down from the next step on, all processes alike."""
        # All but what the file says is the same on all of them.
        if not self._every or state.global_step % self._every or state.global_step >= state.max_steps:
            return
        scheduler = schedule_of(lr_scheduler)
        group_schedule = self._look(args, state, scheduler) if state.is_world_process_zero else None
        group_schedule = _of_first_process(group_schedule, args.device)
        if group_schedule is not None:
            assert scheduler is not None and group_schedule.cooldown is not None
            scheduler.change_group_schedule(group_schedule)
            self._share = group_schedule.cooldown.end / state.max_steps
            state.max_steps = group_schedule.cooldown.end
        if state.is_world_process_zero and (group_schedule is not None or time.monotonic() - self._said >= SECONDS):
            self._say_where(args, state, scheduler)

    def on_train_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Stop listening; a request to a run that was stopped waits for its resume."""
        if state.is_world_process_zero:
            if state.global_step >= state.max_steps and (Path(args.output_dir) / COOLDOWN_REQUEST).exists():
                _refuse(Path(args.output_dir), state, "the run had ended")
            self._say_where(args, state, schedule_of(lr_scheduler), ended=True)

    def _look(self, args: Any, state: Any, scheduler: ScheduleLR | None) -> GroupSchedule | None:
        """The group_schedule that a request asks for; None if there is none, or it cannot be."""
        folder = Path(args.output_dir)
        if not (folder / COOLDOWN_REQUEST).exists():
            return None
        try:
            request = Request.read(read_json(folder / COOLDOWN_REQUEST))
            group_schedule = cool(
                scheduler.group_schedule if scheduler else None,
                request,
                name=_name(args),
                step=scheduler.last_epoch if scheduler else 0,
                made=state.global_step,
                end=state.max_steps,
            )
        except (ValueError, OSError) as error:  # one that another user wrote may be closed to this one
            _refuse(folder, state, str(error))
            return None
        assert group_schedule.cooldown is not None
        write_json(
            folder / COOLDOWN_DONE,
            {**vars(request), "step": state.global_step, "group_schedule": group_schedule.state()},
        )
        (folder / COOLDOWN_REQUEST).unlink()
        tqdm.write(f"step {state.global_step}: {group_schedule.cooldown}: {group_schedule.schedule}")
        return group_schedule

    def _say_where(self, args: Any, state: Any, scheduler: ScheduleLR | None, ended: bool = False) -> None:
        """Tell `hf-sched cooldown` what it can check before it asks."""
        status = {
            "ended": ended,
            "step": state.global_step,
            "end": state.max_steps,
            "every": self._every,
            "skipped": state.global_step - scheduler.last_epoch if scheduler else 0,
            "name": _name(args),
            "group_schedule": scheduler.group_schedule.state() if scheduler else None,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        self._said = time.monotonic()
        with suppress(OSError):  # which is no reason to end a run
            write_json(Path(args.output_dir) / COOLDOWN_STATUS, status)


def _of_first_process(group_schedule: GroupSchedule | None, device: torch.device) -> GroupSchedule | None:
    """What the first process has; all of them have to ask at once."""
    if not (dist.is_available() and dist.is_initialized()):
        return group_schedule
    there = torch.tensor(float(group_schedule is not None), device=device)  # a quarter of the time that an object takes
    dist.broadcast(there, src=0)
    if not there.item():
        return None
    found = [group_schedule]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def _refuse(folder: Path, state: Any, why: str) -> None:
    request = None
    with suppress(OSError):  # which is no reason to end a run
        request = (folder / COOLDOWN_REQUEST).read_text(encoding="utf-8", errors="replace")
    with suppress(OSError):
        write_json(folder / COOLDOWN_REJECTED, {"request": request, "step": state.global_step, "why": why})
        (folder / COOLDOWN_REQUEST).unlink()
    warnings.warn(f"the run goes on as planned, it cannot cool down as told: {why}", UserWarning, stacklevel=2)


def _name(args: Any) -> str:
    return str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))


def _steps_between_looks(args: Any, state: Any, train_dataloader: Any) -> int | None:
    strategy = str(getattr(args.logging_strategy, "value", args.logging_strategy))
    if strategy == "steps":
        return int(state.logging_steps)
    if strategy == "epoch" and hasattr(train_dataloader, "__len__"):
        return max(math.ceil(len(train_dataloader) / args.gradient_accumulation_steps), 1)
    return None
