"""Live cooldown: a request to a running training, and the learning rates that follow from it.

Three JSON files in the run's `output_dir`:

- `_live_control.json`: the state of the run, which `hf_sched.LiveControl` writes about once a second;
- `cooldown.json`: a request;
- `cooldown.done.json` or `cooldown.refused.json`: what the run made of the request.
"""

from __future__ import annotations

import os
import socket
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hf_sched._run_files import COOLDOWN_REQUEST, COOLDOWN_STATUS, read_json, write_json
from hf_sched.scheduler.anneal import cooldown_phase
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError, Number


@dataclass(frozen=True)
class Request:
    """The requested cooldown."""

    duration: int | float | str = "20%"
    """Steps, or a fraction of the shortened run."""
    shape: str = "1-sqrt"
    floor_ratio: float | None = None
    """Where the decay ends, as a fraction of the peak; by default the floor of the run's schedule."""
    min_lr: float | None = None
    """The same as a learning rate."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Request:
        """Read the content of a request file.

        Raises:
            ArgumentError: A key is unknown or a value is invalid.
        """
        if not given.keys() <= cls.__dataclass_fields__.keys():
            raise ArgumentError(COOLDOWN_REQUEST, f"a mapping of {', '.join(cls.__dataclass_fields__)}", dict(given))
        request = cls(**given)
        cooldown_phase(request.duration, request.shape, 1)
        for name, reader in (("floor_ratio", Number(0, 1)), ("min_lr", Number(0))):
            if getattr(request, name) is not None:
                reader(name, getattr(request, name))
        return request


def apply_request(
    group_schedule: GroupSchedule | None,
    request: Request,
    *,
    name: str,
    schedule_step: int,
    step: int,
    num_training_steps: int,
) -> GroupSchedule:
    """The run's learning rates up to a step, followed by the cooldown.

    Args:
        group_schedule: The current learning rates; None if the schedule is not one of hf_sched.
        request: The requested cooldown.
        name: The schedule's name.
        schedule_step: The next step of the schedule.
        step: Optimizer steps made so far; more than `schedule_step` if a gradient scaler skipped some.
        num_training_steps: Optimizer steps planned.

    Raises:
        ValueError: The cooldown is not possible; the message says why.
    """
    if group_schedule is None:
        raise ValueError(
            f"the run's schedule {name!r} is not one of hf_sched, so its curve cannot be changed exactly. Train with "
            "`lr_scheduler_type: wsd` or `phases` (`warmup 3% | hold` is a constant rate), or stop this run and use "
            "`hf_sched.anneal_from` on its last checkpoint"
        )
    schedule, transition = group_schedule.schedule, group_schedule.transition
    segment = schedule.segments[bisect_right([one.first for one in schedule.segments], schedule_step) - 1]
    if transition is not None and (transition.how == "continue" or schedule_step < transition.step + transition.steps):
        raise ValueError(
            f"the transition of `on_resume: {transition.how}`, from step {transition.step} on, has not finished"
        )
    before, here = group_schedule.rates(max(schedule_step - 1, 0), schedule_step + 1)[:, [0, -1]].T.tolist()
    if schedule_step < 1 or segment.kind != "hold" or before != here:
        raise ValueError(
            f"the learning rate must be constant to cool down from, but at step {step} it is in a {segment.kind} "
            f"(steps {segment.first} to {segment.first + segment.steps - 1} of\n    {schedule})"
        )
    steps, phase = cooldown_phase(request.duration, request.shape, step)
    if steps > num_training_steps - step:
        raise ArgumentError(
            "duration",
            f"at most the {num_training_steps - step} steps that the run of {num_training_steps} has left after step "
            f"{step}",
            request.duration,
            f"that is {steps} steps",
        )
    # The cooldown begins at `schedule_step`, so a hold that starts there is left out.
    past = [replace(one, steps=min(one.steps, schedule_step - one.first)) for one in schedule.segments]
    past = [one for one in past if one.first < schedule_step]
    floor = {"floor_ratio": schedule.floor_ratio, "min_lr": schedule.min_lr}
    wanted = {"floor_ratio": request.floor_ratio or 0.0, "min_lr": request.min_lr}
    if (request.floor_ratio, request.min_lr) != (None, None) and wanted != floor:
        if any(one.start.floor or one.end.floor for one in past):
            raise ValueError(f"the floor cannot change because earlier phases depend on it: {schedule}")
        floor = wanted
    phases, semicolon, settings = str(Schedule(tuple(past), **floor)).partition(";")  # type: ignore[arg-type]
    cooled = Schedule.parse(f"{phases.strip()} | {phase}{semicolon}{settings}")
    return GroupSchedule(cooled, group_schedule.peaks, transition, Cooldown(step, steps, str(schedule)))


def send_request(folder: Path, request: Request) -> dict[str, Any]:
    """Write a request for a running training; return what it will do if it accepts it at its next log line.

    Raises:
        ValueError: No run reads requests there, or the cooldown is not possible.
    """
    if not (folder / COOLDOWN_STATUS).is_file():
        raise ValueError(
            f"no run reads requests in {str(folder)!r}: it has no {COOLDOWN_STATUS}, which the recipes and any Trainer "
            "with `callbacks=[hf_sched.LiveControl()]` write. Give the `output_dir` of a running training"
        )
    status = read_json(folder / COOLDOWN_STATUS)
    end, every = status["end"], status["every"]
    if status["ended"] or not _is_alive(status):
        raise ValueError(
            f"the run in {str(folder)!r} {'has ended' if status['ended'] else 'was killed'} (last seen after step "
            f"{status['step']} of {end}): resume it first, or branch a cooldown off its last checkpoint with "
            "`hf_sched.anneal_from`"
        )
    if not every:
        raise ValueError("the run reads requests when it logs, but it never logs: set `logging_strategy: steps`")
    step = (status["step"] // every + 1) * every
    if step >= end:
        raise ValueError(f"the run ends after step {end} and reads no request before")
    group_schedule = apply_request(
        GroupSchedule.from_state(status["group_schedule"]) if status["group_schedule"] else None,
        request,
        name=status["name"],
        schedule_step=step - status["skipped"],
        step=step,
        num_training_steps=end,
    )
    write_json(folder / COOLDOWN_REQUEST, {name: value for name, value in asdict(request).items() if value is not None})
    assert group_schedule.cooldown is not None
    last = group_schedule.schedule.num_training_steps - 1
    return {
        "run": str(folder),
        "step": step,
        "every": every,
        "steps": group_schedule.cooldown.steps,
        "end": group_schedule.cooldown.end,
        "planned_end": end,
        "schedule": str(group_schedule.schedule),
        "rates": group_schedule.rates(last, last + 1)[:, 0].tolist(),
    }


def _is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process exists; a process on another host counts as alive."""
    if status["host"] != socket.gethostname():
        return True
    with suppress(PermissionError):
        try:
            os.kill(status["process"], 0)
        except ProcessLookupError:
            return False
    return True
