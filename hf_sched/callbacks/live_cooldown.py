"""Live control: a running training cools down and ends on request (`hf-sched cooldown`), or before a deadline."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
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
from hf_sched.callbacks.cooldown_request import Request, apply_request, decay_now
from hf_sched.callbacks.time_budget import DEFAULT_RESERVE, Deadline, TimeBudget, TimeReader, foreign_schedule
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import numbers_text, read_schedule
from hf_sched.scheduler.schedule_lr import ScheduleLR, schedule_of
from hf_sched.schedules.validation import Duration

logger = logging.getLogger(__name__)

_RECORD = "LiveControl"
STATUS_INTERVAL = 1.0
"""Seconds between two writes of the status: a write at each log line would slow down tiny steps."""


class LiveControl(TrainerCallback):
    """Lets `hf-sched cooldown OUTPUT_DIR` end the run with a cooldown; with a `time_budget` it begins one by itself.

    At each log line rank 0 looks for a request in `output_dir`. From the next optimizer step on all ranks decay to the
    floor, and `state.max_steps` becomes the end of the cooldown, so the run finishes normally there. A request that is
    not possible changes nothing; a warning and `cooldown.refused.json` say why.

    With a time budget, rank 0 places the cooldown so that the run is evaluated and saved before the deadline. It
    estimates this from the steps, evaluations and checkpoints of the run. If steps become slower during the cooldown,
    the rest of it becomes shorter. A run that ends in time by itself is not changed.

    A checkpoint from the cooldown resumes it with the same command, with or without this callback. A checkpoint from
    before it resumes the original schedule.

    Args:
        time_budget: A duration of the training (`"2h30m"`), which goes on after a resume; a time (`"18:00"`,
            `"2026-11-28 18:00"`, with or without a zone); or `"slurm"` for the end of the Slurm job. None for no limit.
        cooldown: The length of the cooldown for the time budget: steps, or a share of the shortened run.
        shape: The shape of its decay.
        time_reserve: The time (`"5m"`) kept free between the last step and the deadline. By default 2% of the time
            between the start and the deadline. The longest evaluation and twice the longest checkpoint of the run
            replace it if they take longer.
        started: The Unix time at which a duration begins, if not with the training.
        clock: Returns the Unix time, for tests.

    Raises:
        ArgumentError: An argument is wrong, the time is in the past, or the schedule is not one of hf_sched.

    Examples:
        >>> Trainer(model, args, train_dataset=data, callbacks=[hf_sched.LiveControl()])
        >>> Trainer(model, args, train_dataset=data, callbacks=[hf_sched.LiveControl("2h30m", cooldown="20%")])
    """

    def __init__(
        self,
        time_budget: object = None,
        cooldown: Duration = "20%",
        shape: str = "1-sqrt",
        time_reserve: str | None = None,
        *,
        started: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._given = {"cooldown": cooldown, "shape": shape, "time_reserve": time_reserve}
        self._request = Request.parse({"duration": cooldown, "shape": shape})
        self._budget = None if time_budget is None else TimeBudget.parse(time_budget, clock())
        self._reserve = None if time_reserve is None else TimeReader()("time_reserve", time_reserve)
        self._started, self._clock = started, clock
        self._deadline: Deadline | None = None
        """On rank 0."""
        self._begun = 0.0
        """The Unix time at which a run without interruptions would have begun."""
        self._every: int | None = None
        self._next_look: int | None = None
        """The step after which to compare the run with its deadline."""
        self._status_time = -math.inf

    def on_train_begin(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, train_dataloader: Any = None, **kwargs: Any
    ) -> None:
        self._every = _steps_between(args.logging_strategy, state.logging_steps, args, train_dataloader)
        scheduler = schedule_of(lr_scheduler)
        cooldown = scheduler.group_schedule.cooldown if scheduler else None
        self._next_look, self._deadline = None, None
        if self._budget is not None:
            if scheduler is None:
                raise foreign_schedule(read_schedule(args)[0])
            # A shape that does not fit the floor is an error now, not when the time is short.
            step = max(scheduler.last_epoch, 1)
            decay_now(scheduler.group_schedule, replace(self._request, duration=2), step=step, skipped=0)
            self._next_look = state.global_step + 1
            if state.is_world_process_zero:
                self._begin_deadline(self._budget, args, state, train_dataloader)
        if state.is_world_process_zero:
            with training_continues(Path(args.output_dir)):
                _remove_old_files(Path(args.output_dir), state.global_step, cooldown is not None)
            self._write_status(args, state, scheduler)

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Read a request at a logging step, or compare the run with its deadline, on rank 0; apply it on all ranks."""
        step = state.global_step
        if self._deadline is not None:
            self._deadline.measure("step")
            self._save_elapsed(state)
        reads, looks = bool(self._every) and step % (self._every or 1) == 0, step == self._next_look
        if not (reads or looks) or step >= state.max_steps:
            return  # on all ranks alike, because the broadcast below needs all of them
        scheduler = schedule_of(lr_scheduler)
        group_schedule, next_look = None, None
        if state.is_world_process_zero:
            group_schedule = self._read_request(args, state, scheduler) if reads else None
            if self._deadline is not None and scheduler is not None:
                if looks and group_schedule is None:
                    group_schedule = self._keep_deadline(self._deadline, args, state, scheduler)
                next_look = max(self._deadline.next_look, step + 1)
        group_schedule, self._next_look = _broadcast(group_schedule, next_look, args.device)
        if group_schedule is not None:
            assert scheduler is not None and group_schedule.cooldown is not None
            scheduler.set_group_schedule(group_schedule)
            scheduler.set_rates()
            state.max_steps = group_schedule.cooldown.end
        is_due = group_schedule is not None or time.monotonic() - self._status_time >= STATUS_INTERVAL
        if state.is_world_process_zero and is_due:
            self._write_status(args, state, scheduler)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the evaluation."""
        if self._deadline is not None:
            self._deadline.measure("evaluation")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the checkpoint."""
        if self._deadline is not None:
            self._deadline.measure("checkpoint")

    def on_train_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Stop accepting requests; a request to an interrupted run waits for its resume."""
        if state.is_world_process_zero:
            request = Path(args.output_dir, COOLDOWN_REQUEST)
            with training_continues(request):
                if state.global_step >= state.max_steps and request.exists():
                    _reject(Path(args.output_dir), state.global_step, "the run had ended")
            scheduler = schedule_of(lr_scheduler)
            self._write_status(args, state, scheduler, ended=True)
            if self._deadline is not None and scheduler is not None and state.global_step >= state.max_steps:
                left = f"{abs(self._deadline.left):.0f} s {'before' if self._deadline.left > 0 else 'after'}"
                changed = "" if scheduler.group_schedule.cooldown else ", by itself: the time budget changed nothing"
                logger.info("the training ended %s its deadline%s", left, changed)

    def _begin_deadline(self, budget: TimeBudget, args: Any, state: Any, train_dataloader: Any) -> None:
        now = self._clock()
        saved = state.stateful_callbacks.get(_RECORD, {}).get("attributes", {}) if state.global_step else {}
        begun = now if self._started is None else self._started
        self._begun = begun - saved.get("elapsed", 0.0)
        end = budget.deadline(self._begun)
        reserve = max(end - begun, 0.0) * DEFAULT_RESERVE if self._reserve is None else self._reserve
        every = {
            "evaluation": _steps_between(args.eval_strategy, state.eval_steps, args, train_dataloader),
            "checkpoint": _steps_between(args.save_strategy, state.save_steps, args, train_dataloader),
        }
        self._deadline = Deadline(end, reserve, self._request.duration, every, self._clock)
        self._save_elapsed(state)
        until = datetime.fromtimestamp(end).astimezone().isoformat(" ", "seconds")
        logger.info("time budget %s: the cooldown begins in time for the run to end before %s", budget, until)

    def _save_elapsed(self, state: Any) -> None:
        """Write the time that the run has taken into the state, which each checkpoint has."""
        given = {"time_budget": str(self._budget), **self._given}
        attributes = {"elapsed": self._clock() - self._begun}
        state.stateful_callbacks[_RECORD] = {"args": given, "attributes": attributes}

    def _keep_deadline(self, deadline: Deadline, args: Any, state: Any, scheduler: ScheduleLR) -> GroupSchedule | None:
        """The learning rates with the cooldown that the deadline needs now; None if it needs no change."""
        current, step = scheduler.group_schedule, state.global_step
        steps = deadline.decide(step, state.max_steps, is_cooling=current.cooldown is not None)
        if steps is None or scheduler.last_epoch < 1:
            return None
        request, position = replace(self._request, duration=steps), _position(args, state, scheduler)
        try:
            cooled = apply_request(current, request, **position)
        except ValueError:  # the rate is not constant here
            cooled = decay_now(current, request, step=step, skipped=step - scheduler.last_epoch)
        with training_continues(file := Path(args.output_dir, COOLDOWN_DONE)):
            write_json(file, {**vars(request), "step": step, "group_schedule": cooled.state()})
        start, end = current.at(scheduler.last_epoch - 1), cooled.at((cooled.schedule.horizon or 1) - 1)
        logger.warning(
            "%s, from %s to %s, to end before the deadline", cooled.cooldown, *map(numbers_text, (start, end))
        )
        return cooled

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
            "deadline": self._deadline.end if self._deadline is not None else None,
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


def _broadcast(
    group_schedule: GroupSchedule | None, next_look: int | None, device: torch.device
) -> tuple[GroupSchedule | None, int | None]:
    """The values of rank 0 on all ranks."""
    values = [group_schedule]
    if dist.is_available() and dist.is_initialized():
        # Four times as fast as an object.
        numbers = torch.tensor([int(group_schedule is not None), next_look or 0], device=device)
        dist.broadcast(numbers, src=0)
        is_changed, next_look = numbers.tolist()
        if is_changed:
            dist.broadcast_object_list(values, src=0)
    return values[0], next_look or None


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


def _steps_between(strategy: Any, steps: float | None, args: Any, train_dataloader: Any) -> int | None:
    """The optimizer steps between two events of a strategy; None if it has no events, or at unknown steps."""
    word = str(getattr(strategy, "value", strategy))
    if word == "steps":
        return int(steps or 0) or None
    if word == "epoch" and hasattr(train_dataloader, "__len__"):
        return max(math.ceil(len(train_dataloader) / args.gradient_accumulation_steps), 1)
    return None
