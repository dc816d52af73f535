"""transformers' own schedules: the arguments of their functions, and the curves that result."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

from hf_sched.check.context import Subject
from hf_sched.check.horizon import Horizon
from hf_sched.check.values import judge
from hf_sched.integrations.builtin_schedules import multiplier, parameters, scheduler_function
from hf_sched.schedules.validation import ArgumentError, unknown_argument

KWARGS = "lr_scheduler_kwargs"


def check_builtin(subject: Subject, name: str, arguments: Mapping[str, Any], horizon: Horizon, warmup: int) -> None:
    """Check each argument by its type hint, then all of them by transformers' function."""
    takes = parameters(name)
    _check_types(subject, name, arguments, takes)
    _check_floor(subject, arguments, takes)
    if KWARGS in subject.wrong:
        return
    total = horizon.num_training_steps or 1000  # if it is unknown, only the arguments are judged
    peak = abs(subject.number("learning_rate") or 1.0)
    try:
        multiplier(name, num_training_steps=total, num_warmup_steps=warmup, peak=peak, **arguments)
    except ArgumentError as error:
        subject.rejected(error, KWARGS if error.name in takes else "")
        return
    if name == "warmup_stable_decay":
        _check_stable(subject, arguments, horizon, warmup)


def _check_types(
    subject: Subject, name: str, arguments: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]
) -> None:
    function = scheduler_function(name)
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for key, value in arguments.items():
        if key not in takes:
            ours = "; hf_sched's schedules have it (`hf-sched list`)" if key in ("min_lr", "floor_ratio") else ""
            subject.error(f"{KWARGS}.{key}", unknown_argument(key, value, takes, name).detail + ours)
            continue
        default = takes[key].default
        hint = hints.get(key, Any if default in (None, inspect.Parameter.empty) else type(default))
        if wrong := judge(hint, value, converts_text=False):  # no parser reads nested text
            subject.find(wrong[0], f"{KWARGS}.{key}", wrong[1])


def _check_floor(subject: Subject, arguments: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]) -> None:
    """Find floors above the peak, to which transformers would raise the learning rate."""
    peak = subject.number("learning_rate")
    for key in takes.keys() & {"min_lr", "lr_end"}:
        floor = arguments.get(key, takes[key].default)
        if isinstance(floor, (int, float)) and peak and floor > peak:
            default = "" if key in arguments else ", its default"
            rule = f"must be at most the `learning_rate` {peak:g}, is {floor:g}{default}"
            subject.error(f"{KWARGS}.{key}", rule)
    for key in takes.keys() & {"min_lr_rate", "min_lr_ratio"}:
        share = arguments.get(key)
        if isinstance(share, (int, float)) and not 0 <= share <= 1:
            subject.error(f"{KWARGS}.{key}", f"must be a share of the peak, from 0 to 1, received {share:g}")


def _check_stable(subject: Subject, arguments: Mapping[str, Any], horizon: Horizon, warmup: int) -> None:
    total, decay, stable = horizon.num_training_steps, arguments["num_decay_steps"], arguments.get("num_stable_steps")
    if total is None:
        subject.not_judged.append("whether warmup, stable and decay steps fill the run: its length is unknown")
        return
    used = warmup + decay + (stable or 0)
    parts = f"{warmup} warmup + {'' if stable is None else f'{stable} stable + '}{decay} decay = {used} steps"
    run = f"the run of {total} ({horizon.source})"
    if used > total:
        remedy = f"write num_decay_steps: {max(total - used + decay, 1)} or less"
        subject.error(f"{KWARGS}.num_decay_steps", f"{parts} do not fit into {run}, which cuts the decay: {remedy}")
    elif stable is not None and used < total:
        message = f"{parts} end before {run}, whose rest trains at the floor: leave it out"
        subject.warning(f"{KWARGS}.num_stable_steps", message)
