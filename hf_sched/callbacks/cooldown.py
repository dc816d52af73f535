"""A cooldown that a running run is told of: the request, the group_schedule that comes of it, and the files that they go by.

In the run's `output_dir`, all JSON:

- `_live_control.json`: where the run is, and on which group_schedule, as `hf_sched.LiveControl` says about each second (what
  begins with `_` the Trainer does not push to the hub: it names the machine);
- `cooldown.json`: a request. The run takes it away and leaves `cooldown.done.json` or `cooldown.refused.json`.
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
from hf_sched.scheduler.anneal import decay_of
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError, Number


@dataclass(frozen=True)
class Request:
    """What is requested."""

    duration: int | float | str = "20%"
    """In steps, or as a share of the run that the cooldown ends."""
    shape: str = "1-sqrt"
    floor_ratio: float | None = None
    """Where it ends, as a share of the peak; by default on the floor of the run's schedule."""
    min_lr: float | None = None
    """The same as a learning rate."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Request:
        """From what a file says.

        Raises:
            ValueError: Something else is in it, or does not fit.
        """
        unknown = given.keys() - cls.__dataclass_fields__
        if unknown:
            raise ArgumentError(COOLDOWN_REQUEST, f"a mapping of {', '.join(cls.__dataclass_fields__)}", dict(given))
        request = cls(**given)
        decay_of(request.duration, request.shape, 1)
        for name, reader in (("floor_ratio", Number(0, 1)), ("min_lr", Number(0))):
            if getattr(request, name) is not None:
                reader(name, getattr(request, name))
        return request


def cool(
    group_schedule: GroupSchedule | None, request: Request, *, name: str, step: int, made: int, end: int
) -> GroupSchedule:
    """The group_schedule of a run up to a step, and the cooldown from there on.

    Args:
        group_schedule: What the run is on; None if that is no schedule of ours.
        request: What is requested.
        name: Of the schedule.
        step: The schedule's step that comes next.
        made: The optimizer steps made; more than `step` if a gradient scaler skipped some.
        end: Those that the run is to make.

    Raises:
        ValueError: It cannot be; the message says why.
    """
    if group_schedule is None:
        raise ValueError(
            f"the run's schedule, {name!r}, is none of hf_sched, so that its curve cannot be changed exactly. Train "
            "with `lr_scheduler_type: wsd`, or with `phases` (`warmup 3% | hold` is a constant rate). This run you can "
            "stop, and branch a cooldown off its last checkpoint: `hf_sched.anneal_from`"
        )
    schedule = group_schedule.schedule
    number = bisect_right([segment.first for segment in schedule.segments], step) - 1
    segment, transition = schedule.segments[number], group_schedule.transition
    if transition is not None and (transition.how == "continue" or step < transition.step + transition.steps):
        raise ValueError(
            f"the run was resumed at step {transition.step} with `on_resume: {transition.how}`, and is still at that"
        )
    before, here = group_schedule.rates(max(step - 1, 0), step + 1)[:, [0, -1]].T.tolist()
    if step < 1 or segment.kind != "hold" or before != here:
        until = segment.first + segment.steps
        raise ValueError(
            f"the learning rate must be constant to cool down from, but at step {made} it is in a {segment.kind} "
            f"(steps {segment.first} to {until - 1} of\n    {schedule})"
        )
    steps, phase = decay_of(request.duration, request.shape, made)
    if steps > end - made:
        raise ValueError(
            f"`duration` must be at most the {end - made} steps that the run of {end} has left from step {made} on, "
            f"received {request.duration!r}, which is {steps} steps"
        )
    # The step itself cools down already, so a hold that begins with it is not in it.
    so_far = [replace(one, steps=min(one.steps, step - one.first)) for one in schedule.segments if one.first < step]
    floor = {"floor_ratio": schedule.floor_ratio, "min_lr": schedule.min_lr}
    wanted = {"floor_ratio": request.floor_ratio or 0.0, "min_lr": request.min_lr}
    if (request.floor_ratio, request.min_lr) != (None, None) and wanted != floor:
        if any(one.start.floor or one.end.floor for one in so_far):
            raise ValueError(f"the phases so far stand on the floor, which must stay as it is: {schedule}")
        floor = wanted
    prefix = str(Schedule(tuple(so_far), **floor))  # type: ignore[arg-type]
    phases, semicolon, behind = prefix.partition(";")
    cooled = Schedule.parse(f"{phases.strip()} | {phase}{semicolon}{behind}")
    return GroupSchedule(cooled, group_schedule.peaks, transition, Cooldown(made, steps, str(schedule)))


def ask(folder: Path, request: Request) -> dict[str, Any]:
    """Tell a running run to cool down; what will come of it, if it looks at its next log line.

    Raises:
        ValueError: No run listens there, or it cannot cool down as requested.
    """
    if not (folder / COOLDOWN_STATUS).is_file():
        raise ValueError(
            f"no run listens in {str(folder)!r}: it has no {COOLDOWN_STATUS}, which a recipe writes when training begins, and "
            "any other Trainer with `callbacks=[hf_sched.LiveControl()]`. Give the `output_dir` of a running run"
        )
    status = read_json(folder / COOLDOWN_STATUS)
    if status["ended"] or not _alive(status):
        state = "has ended" if status["ended"] else "was killed"
        raise ValueError(
            f"the run in {str(folder)!r} {state} (seen last after step {status['step']} of {status['end']}): resume it "
            "first, or branch a cooldown off its last checkpoint: `hf_sched.anneal_from`"
        )
    every = status["every"]
    if not every:
        raise ValueError("the run looks for requests where it logs, and logs nothing: `logging_strategy: steps`")
    made = (status["step"] // every + 1) * every
    if made >= status["end"]:
        raise ValueError(f"the run ends after step {status['end']}, and looks for no request before")
    group_schedule = cool(
        GroupSchedule.from_state(status["group_schedule"]) if status["group_schedule"] else None,
        request,
        name=status["name"],
        step=made - status["skipped"],
        made=made,
        end=status["end"],
    )
    write_json(folder / COOLDOWN_REQUEST, {name: value for name, value in asdict(request).items() if value is not None})
    assert group_schedule.cooldown is not None
    last = group_schedule.schedule.num_training_steps - 1
    return {
        "run": str(folder),
        "step": made,
        "every": every,
        "steps": group_schedule.cooldown.steps,
        "end": group_schedule.cooldown.end,
        "planned_end": status["end"],
        "schedule": str(group_schedule.schedule),
        "rates": group_schedule.rates(last, last + 1)[:, 0].tolist(),
    }


def _alive(status: Mapping[str, Any]) -> bool:
    """Whether the process is, as far as one can tell from here."""
    if status["host"] != socket.gethostname():
        return True
    with suppress(PermissionError):
        try:
            os.kill(status["process"], 0)
        except ProcessLookupError:
            return False
    return True
