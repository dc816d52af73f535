"""The learning-rate schedule: its name, its arguments, and whether warmup, cycles and floor fit the run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.builtin_schedule import check_builtin
from hf_sched.check.finding import Finding
from hf_sched.check.horizon import Horizon
from hf_sched.check.subject import Subject
from hf_sched.scheduler.resume import OnResume
from hf_sched.schedules import registry
from hf_sched.schedules.validation import ArgumentError, EpochsUnknown

KWARGS = "lr_scheduler_kwargs"


def check_schedule(subject: Subject, horizon: Horizon) -> Iterator[Finding]:
    """Everything about the schedule that can be judged with what is known about the run."""
    from transformers import SchedulerType

    name = subject.text("lr_scheduler_type")
    found = list(_check_warmup(subject, horizon, name))
    yield from found
    builtin = [str(member.value) for member in SchedulerType if member.value not in registry.available()]
    if name not in (*registry.available(), *builtin):
        yield subject.rejected(registry.unknown_schedule(subject.value("lr_scheduler_type"), builtin))
        return
    try:
        arguments = subject.config.mapping(KWARGS)
    except ArgumentError:  # reported by `values.py`
        return
    if "on_resume" in arguments:
        try:
            OnResume.parse(arguments.pop("on_resume"))
        except ArgumentError as error:
            yield subject.rejected(error, KWARGS)
    optimizer = subject.text("optim")
    if optimizer.startswith("schedule_free") and name not in ("constant", "constant_with_warmup"):
        message = f"{name} changes the learning rate, but `optim: {optimizer}` requires a constant one"
        yield subject.warning("lr_scheduler_type", f"{message}: write constant_with_warmup")
    # A warmup that does not fit is reported once, not again by each schedule.
    warmup = 0 if found else horizon.num_warmup_steps
    if name in registry.available():
        yield from _check_ours(subject, registry.entry(name), arguments, horizon, warmup)
    else:
        yield from check_builtin(subject, name, arguments, horizon, warmup)


def _check_warmup(subject: Subject, horizon: Horizon, name: str) -> Iterator[Finding]:
    total, warmup = horizon.num_training_steps, horizon.num_warmup_steps
    if total is not None and warmup >= total > 0:
        yield subject.error(
            "warmup_steps",
            f"is a warmup of {warmup} steps in a run of {total} ({horizon.source}), which never reaches its "
            "learning rate: write fewer, or a share of the run (warmup_steps: 0.05)",
        )
    elif name in ("constant", "reduce_lr_on_plateau", "greedy") and subject.number("warmup_steps"):
        remedy = "write lr_scheduler_type: constant_with_warmup" if name == "constant" else "leave it out"
        yield subject.error("warmup_steps", f"is ignored by `lr_scheduler_type: {name}`: {remedy}")


def _check_ours(
    subject: Subject, entry: registry.Entry, arguments: dict[str, Any], horizon: Horizon, warmup: int
) -> Iterator[Finding]:
    found = [subject.rejected(error, KWARGS) for error in _rejected_arguments(entry, arguments)]
    yield from found
    peak, total = subject.number("learning_rate"), horizon.num_training_steps
    if found or total is None:
        yield from _check_floor(subject, arguments, peak)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            schedule = entry.build(total, min(warmup, total - 1), arguments, horizon.steps_per_epoch)
            if peak is not None and peak > 0:
                schedule.floor(peak)
        except EpochsUnknown as error:
            subject.not_judged.append(f"the schedule: {error}")
            yield from _check_floor(subject, arguments, peak)
        except ArgumentError as error:
            yield subject.rejected(error, KWARGS)
    for warning in caught:
        if warning.category is UserWarning:
            key = KWARGS if arguments else "lr_scheduler_type"
            yield subject.warning(key, f"{warning.message} ({horizon.source})")


def _rejected_arguments(entry: registry.Entry, arguments: Mapping[str, Any]) -> Iterator[ArgumentError]:
    """One error for each wrong argument: the rejected one is left out, and the others are read again."""
    remaining = dict(arguments)
    while True:
        try:
            entry.read(remaining)
        except ArgumentError as error:
            if error.name not in remaining and error.name in arguments:  # required, and already rejected
                return
            yield error
            if remaining.pop(error.name, None) is None:
                return
        else:
            return


def _check_floor(subject: Subject, arguments: Mapping[str, Any], peak: float | None) -> Iterator[Finding]:
    try:
        floor = float(arguments.get("min_lr") or 0)
    except (TypeError, ValueError):
        return
    if peak is not None and floor > peak > 0:
        rule = f"must be at most the `learning_rate` {peak:g}, received {floor:g}"
        yield subject.error(f"{KWARGS}.min_lr", f"{rule}: write less, or use floor_ratio, a share of the peak")
