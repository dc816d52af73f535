"""Live cooldown: a request to a running training (`cooldown.json`), and the learning rates that follow from it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from hf_sched._run_files import COOLDOWN_REQUEST, COOLDOWN_STATUS, explain_damage, read_json, write_json
from hf_sched.scheduler.anneal import cooldown_phase
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule, ResumeTransition
from hf_sched.schedules.phases import LINEAR
from hf_sched.schedules.schedule import Schedule, Segment
from hf_sched.schedules.validation import ArgumentError, Number


@dataclass(frozen=True)
class Request:
    """The arguments of `hf_sched.anneal_from`; by default the floor is that of the run's schedule."""

    duration: int | float | str = "20%"
    shape: str = "1-sqrt"
    floor_ratio: float | None = None
    min_lr: float | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Request:
        """Read the content of a request file; raise an ArgumentError for an unknown key or an invalid value."""
        if not given.keys() <= cls.__dataclass_fields__.keys():
            raise ArgumentError(COOLDOWN_REQUEST, f"a mapping of {', '.join(cls.__dataclass_fields__)}", dict(given))
        request = cls(**given)
        cooldown_phase(request.duration, request.shape, 1)
        for name, reader in (("floor_ratio", Number(0, 1)), ("min_lr", Number(0))):
            if getattr(request, name) is not None:
                reader(name, getattr(request, name))
        return request


def apply_request(
    group_schedule: GroupSchedule | None, request: Request, *, name: str, step: int, skipped: int, end: int
) -> GroupSchedule:
    """The run's learning rates up to `step`, followed by the cooldown; a ValueError says why it is not possible.

    The schedule did not advance in the `skipped` steps of a gradient scaler. `end` is the planned number of steps.
    """
    if group_schedule is None:
        raise ValueError(
            f"the run's schedule {name!r} is not one of hf_sched. Train with `lr_scheduler_type: wsd` or `phases` "
            "(`warmup 3% | hold` is a constant rate), or use `hf_sched.anneal_from` on the last checkpoint"
        )
    schedule, transition, here = group_schedule.schedule, group_schedule.transition, step - skipped
    if transition is not None and (transition.how == "continue" or here < transition.step + transition.steps):
        raise ValueError(
            f"the transition of `on_resume: {transition.how}`, from step {transition.step} on, has not finished"
        )
    segment, horizon = schedule.segment_at(here), schedule.horizon
    is_held = segment.kind == "hold" or (horizon is not None and here >= horizon)
    followers = [number for number in range(len(group_schedule.peaks)) if group_schedule.of_group(number) is schedule]
    rates = group_schedule.rates(max(here - 1, 0), here + 1)[followers]
    if here < 1 or not is_held or (rates[:, :1] != rates).any():
        raise ValueError(
            f"the learning rate must be constant to cool down from, but at step {step} it is in a {segment.kind} "
            f"(steps {segment.first} to {segment.first + segment.steps - 1} of\n    {schedule})"
        )
    steps, phase = cooldown_phase(request.duration, request.shape, step)
    if steps > end - step:
        left = f"at most the {end - step} steps that the run of {end} has left after step {step}"
        raise ArgumentError("duration", left, request.duration, f"that is {steps} steps")
    past = _past(schedule.segments, here)
    floor = {"floor_ratio": schedule.floor_ratio, "min_lr": schedule.min_lr}
    wanted = {"floor_ratio": request.floor_ratio or 0.0, "min_lr": request.min_lr}
    sets_floor = (request.floor_ratio, request.min_lr) != (None, None)
    if sets_floor and wanted != floor:
        if any(one.start.floor or one.end.floor for one in past):
            raise ValueError(f"the floor cannot change because earlier phases depend on it: {schedule}")
        floor = wanted
    phases, semicolon, settings = str(Schedule(tuple(past), **floor)).partition(";")  # type: ignore[arg-type]
    cooled = Schedule.parse(f"{phases.strip()} | {phase}{semicolon}{settings}")
    cooldown = Cooldown(step, steps, str(schedule), sets_floor, schedule.num_training_steps)
    return replace(group_schedule, schedule=cooled, cooldown=cooldown)


def decay_now(group_schedule: GroupSchedule, request: Request, *, step: int, skipped: int) -> GroupSchedule:
    """Like `apply_request` from any rate: each parameter group decays from its present one to its floor.

    In a live cooldown the duration is that of the rest, which keeps its shape.
    """
    schedule, here = group_schedule.schedule, step - skipped
    steps, phase = cooldown_phase(request.duration, request.shape, step)
    cooldown = group_schedule.cooldown or Cooldown(step, 0, str(schedule), planned=schedule.num_training_steps)
    segments = [*schedule.segments]
    if group_schedule.cooldown:
        decay = segments.pop()
        phase = str(decay._replace(steps=here + steps - decay.first).as_phase(segments[-1].end))
    past = segments if group_schedule.cooldown else _past(segments, here)
    if not group_schedule.cooldown and past[-1].kind != "hold":
        # A part of a warmup or decay is no phase. Its highest level is above every present rate, which is enough here.
        level = past[-1].end if past[-1].rises else past[-1].start
        past[-1] = Segment("hold", past[-1].first, past[-1].steps, LINEAR, level, level, jump=False)
    phases, semicolon, settings = str(replace(schedule, segments=tuple(past), run_steps=None)).partition(";")
    changed = Schedule.parse(f"{phases.strip()} | {phase}{semicolon}{settings}")
    rates = tuple(map(min, group_schedule.at(here - 1), group_schedule.at(here)))
    transition = ResumeTransition("continue", here, rates, steps)
    cooldown = replace(cooldown, steps=step + steps - cooldown.step)
    return replace(group_schedule, schedule=changed, transition=transition, cooldown=cooldown)


def _past(segments: Sequence[Segment], step: int) -> list[Segment]:
    """The segments up to a step, with a hold at the last level if they end before it."""
    past = [one._replace(steps=min(one.steps, step - one.first)) for one in segments if one.first < step]
    end, level = past[-1].first + past[-1].steps, past[-1].end
    return past if end == step else [*past, Segment("hold", end, step - end, LINEAR, level, level, jump=False)]


def send_request(folder: Path, request: Request) -> dict[str, Any]:
    """Write a request for a running training; return what it will do if it accepts it at its next log line."""
    if not (folder / COOLDOWN_STATUS).is_file():
        raise ValueError(
            f"no run reads requests in {str(folder)!r}: it has no {COOLDOWN_STATUS}, which the recipes and any Trainer "
            "with `callbacks=[hf_sched.LiveControl()]` write. Give the `output_dir` of a running training"
        )
    with explain_damage(folder / COOLDOWN_STATUS):
        return _send(folder, request, read_json(folder / COOLDOWN_STATUS))


def _send(folder: Path, request: Request, status: Mapping[str, Any]) -> dict[str, Any]:
    end, every = status["end"], status["every"]
    if status["ended"] or not _is_alive(status):
        raise ValueError(
            f"the run in {str(folder)!r} {'has ended' if status['ended'] else 'was killed'} (last seen after step "
            f"{status['step']} of {end}): resume it first, or use `hf_sched.anneal_from` on its last checkpoint"
        )
    if not every:
        raise ValueError("the run reads requests when it logs, but it never logs: set `logging_strategy: steps`")
    step = (status["step"] // every + 1) * every
    if step >= end:
        raise ValueError(f"the run ends after step {end} and reads no request before")
    current = GroupSchedule.from_state(status["group_schedule"]) if status["group_schedule"] else None
    cooled = apply_request(current, request, name=status["name"], step=step, skipped=status["skipped"], end=end)
    write_json(folder / COOLDOWN_REQUEST, {name: value for name, value in asdict(request).items() if value is not None})
    new_end = step + cooled.schedule.segments[-1].steps
    return {
        **{"run": str(folder), "step": step, "every": every, "steps": new_end - step, "end": new_end},
        **{"planned_end": end, "schedule": str(cooled.schedule)},
        "rates": list(cooled.at((cooled.schedule.horizon or new_end) - 1)),
    }


def _is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process exists; a process on another host counts as alive."""
    if status["host"] == socket.gethostname():
        return bool(psutil.pid_exists(status["process"]))
    return True
