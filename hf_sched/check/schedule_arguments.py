"""The learning-rate schedule: its name, its arguments, and whether warmup, cycles and floor fit the run."""

from __future__ import annotations

import warnings
from typing import Any

from hf_sched.check.builtin_arguments import KWARGS, check_builtin
from hf_sched.check.context import Subject
from hf_sched.check.horizon import Horizon, find_horizon
from hf_sched.scheduler.resume import OnResume
from hf_sched.schedules import registry
from hf_sched.schedules.validation import ArgumentError, EpochsUnknown, Number


def check_schedule(subject: Subject) -> None:
    """Check everything about the schedule that can be judged with what is known about the run."""
    from transformers import SchedulerType

    if subject.given.get("anneal_from"):
        subject.not_judged.append("the schedule: it is the cooldown of another run's checkpoint (`anneal_from`)")
        return
    name, horizon = subject.text("lr_scheduler_type"), find_horizon(subject)
    _check_warmup(subject, horizon, name)
    builtin = [str(member.value) for member in SchedulerType if member.value not in registry.available()]
    if name not in (*registry.available(), *builtin):
        subject.rejected(registry.unknown_schedule(subject.config.get("lr_scheduler_type"), builtin))
        return
    optimizer = subject.text("optim")
    if optimizer.startswith("schedule_free") and name not in ("constant", "constant_with_warmup"):
        message = f"{name} changes the learning rate, but `optim: {optimizer}` requires a constant one"
        subject.warning("lr_scheduler_type", f"{message}: write constant_with_warmup")
    try:
        arguments = subject.config.mapping(KWARGS)
    except ArgumentError:  # reported by `values.py`
        return
    try:
        if "on_resume" in arguments:
            OnResume.parse(arguments.pop("on_resume"))
    except ArgumentError as error:
        subject.rejected(error, KWARGS)
    # A warmup that does not fit is reported once, not again by each schedule.
    warmup = 0 if "warmup_steps" in subject.wrong else horizon.num_warmup_steps
    if name in registry.available():
        _check_ours(subject, registry.entry(name), arguments, horizon, warmup)
    else:
        check_builtin(subject, name, arguments, horizon, warmup)


def _check_warmup(subject: Subject, horizon: Horizon, name: str) -> None:
    total, warmup = horizon.num_training_steps, horizon.num_warmup_steps
    if total is not None and warmup >= total:
        rule = f"is a warmup of {warmup} steps in a run of {total} ({horizon.source}), which never reaches its peak"
        subject.error("warmup_steps", f"{rule}: write fewer, or a share of the run (warmup_steps: 0.05)")
    elif name in ("constant", "reduce_lr_on_plateau", "greedy") and subject.number("warmup_steps"):
        remedy = "write lr_scheduler_type: constant_with_warmup" if name == "constant" else "leave it out"
        subject.error("warmup_steps", f"is ignored by `lr_scheduler_type: {name}`: {remedy}")


def _check_ours(
    subject: Subject, entry: registry.Entry, arguments: dict[str, Any], horizon: Horizon, warmup: int
) -> None:
    _check_arguments(subject, entry, arguments)
    peak, total = subject.number("learning_rate"), horizon.num_training_steps
    try:
        floor = Number()("min_lr", arguments.get("min_lr") or 0)
    except ArgumentError:  # reported above
        floor = 0
    if peak is not None and floor > peak > 0:
        rule = f"must be at most the `learning_rate` {peak:g}, received {floor:g}"
        subject.error(f"{KWARGS}.min_lr", f"{rule}: write less, or use floor_ratio, a share of the peak")
    if KWARGS in subject.wrong or total is None:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            entry.build(total, min(warmup, total - 1), arguments, horizon.steps_per_epoch)
        except EpochsUnknown as error:
            subject.not_judged.append(f"the schedule: {error}")
        except ArgumentError as error:
            subject.rejected(error, KWARGS)
    for warning in caught:
        if warning.category is UserWarning:
            subject.warning(KWARGS if arguments else "lr_scheduler_type", f"{warning.message} ({horizon.source})")


def _check_arguments(subject: Subject, entry: registry.Entry, arguments: dict[str, Any]) -> None:
    """Find all wrong arguments: each rejected one is left out, and the others are read again."""
    remaining = dict(arguments)
    while True:
        try:
            entry.read(remaining)
            return
        except ArgumentError as error:
            if error.name in remaining or error.name not in arguments:  # otherwise required, and already rejected
                subject.rejected(error, KWARGS)
            if remaining.pop(error.name, None) is None:
                return
