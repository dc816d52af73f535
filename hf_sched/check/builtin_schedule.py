"""transformers' own schedules: the arguments of their functions, and the curves that result."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.horizon import Horizon
from hf_sched.check.subject import Subject
from hf_sched.check.values import judge
from hf_sched.integrations.builtin_schedules import multiplier, parameters, scheduler_function
from hf_sched.schedules.validation import ArgumentError, unknown_argument

KWARGS = "lr_scheduler_kwargs"
_FROM_THE_TRAINER = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
# The length of a run if it is unknown. Only the arguments are judged then.
_SOME_STEPS = 1000


def check_builtin(
    subject: Subject, name: str, arguments: Mapping[str, Any], horizon: Horizon, warmup: int
) -> Iterator[Finding]:
    """Each argument by its type hint, then all of them by transformers' function."""
    takes = parameters(name)
    found = [*_check_arguments(subject, name, arguments, takes), *_check_floor(subject, arguments, takes)]
    yield from found
    if any(finding.severity == "error" for finding in found):
        return
    try:
        multiplier(
            name,
            num_training_steps=horizon.num_training_steps or _SOME_STEPS,
            num_warmup_steps=warmup,
            peak=abs(subject.number("learning_rate") or 1.0),
            **arguments,
        )
    except ArgumentError as error:
        yield subject.error(f"{KWARGS}.{error.name}" if error.name in arguments else _place(arguments), error.detail)
        return
    if name == "warmup_stable_decay":
        yield from _check_stable(subject, arguments, horizon, warmup)


def _check_arguments(
    subject: Subject, name: str, arguments: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]
) -> Iterator[Finding]:
    function = scheduler_function(name)
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for key, value in arguments.items():
        place = f"{KWARGS}.{key}"
        ours = "; hf_sched's schedules have it (`hf-sched list`)" if key in ("min_lr", "floor_ratio") else ""
        if key in _FROM_THE_TRAINER:
            yield subject.error(place, "is set by the Trainer: leave it out")
        elif not takes:
            yield subject.error(place, f"is not an argument of {name}, which has none: leave it out{ours}")
        elif key not in takes:
            detail = unknown_argument(key, value, takes, name).detail
            yield subject.error(place, f"{detail}{ours}")
        else:
            default = takes[key].default
            hint = hints.get(key, Any if default in (None, inspect.Parameter.empty) else type(default))
            if wrong := judge(hint, value, converts_text=False):  # no parser reads nested text
                yield subject.find(wrong[0], place, wrong[1])
    for key, parameter in takes.items():
        if parameter.default is parameter.empty and key not in arguments:
            yield subject.error(_place(arguments), f"{name} requires `{key}`: write {KWARGS}: {{{key}: N}}")


def _check_floor(
    subject: Subject, arguments: Mapping[str, Any], takes: Mapping[str, inspect.Parameter]
) -> Iterator[Finding]:
    """Floors that are missing, given twice, or above the peak, to which transformers would raise the learning rate."""
    peak = subject.number("learning_rate")
    if {"min_lr", "min_lr_rate"} <= takes.keys():
        given = [key for key in ("min_lr", "min_lr_rate") if arguments.get(key) is not None]
        if len(given) == 2:
            yield subject.error(f"{KWARGS}.min_lr", "has the same meaning as `min_lr_rate`: leave one of them out")
        elif not given:
            remedy = f"write {KWARGS}: {{min_lr_rate: 0.1}} (a share of the peak) or {{min_lr: ...}}"
            yield subject.error(_place(arguments), f"requires a floor: {remedy}")
    for key in ("min_lr", "lr_end"):
        floor = arguments.get(key, takes[key].default if key in takes else None)
        if key in takes and isinstance(floor, (int, float)) and peak and floor > peak:
            default = "" if key in arguments else ", its default"
            yield subject.error(
                f"{KWARGS}.{key}", f"must be at most the `learning_rate` {peak:g}, is {floor:g}{default}"
            )
    for key in ("min_lr_rate", "min_lr_ratio"):
        share = arguments.get(key)
        if key in takes and isinstance(share, (int, float)) and not 0 <= share <= 1:
            yield subject.error(f"{KWARGS}.{key}", f"must be a share of the peak, from 0 to 1, received {share:g}")


def _check_stable(subject: Subject, arguments: Mapping[str, Any], horizon: Horizon, warmup: int) -> Iterator[Finding]:
    total = horizon.num_training_steps
    decay, stable = arguments.get("num_decay_steps"), arguments.get("num_stable_steps")
    if total is None:
        subject.not_judged.append("whether warmup, stable and decay steps fill the run: its length is unknown")
    if total is None or not isinstance(decay, int):
        return
    used = warmup + decay + (stable if isinstance(stable, int) else 0)
    parts = f"{warmup} warmup + {f'{stable} stable + ' if stable is not None else ''}{decay} decay = {used} steps"
    run = f"the run of {total} ({horizon.source})"
    if used > total:
        remedy = f"write num_decay_steps: {max(total - used + decay, 1)} or less"
        yield subject.error(
            f"{KWARGS}.num_decay_steps", f"{parts} do not fit into {run}, which cuts the decay: {remedy}"
        )
    elif stable is not None and used < total:
        message = f"{parts} end before {run}, whose rest trains at the floor: leave it out"
        yield subject.warning(f"{KWARGS}.num_stable_steps", message)


def _place(arguments: Mapping[str, Any]) -> str:
    return KWARGS if arguments else "lr_scheduler_type"
