"""The learning-rate schedule: its name, its arguments, and whether warmup, cycles and floor fit the run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.builtin_schedule import check_builtin, named_in
from hf_sched.check.finding import Finding
from hf_sched.check.horizon import Horizon
from hf_sched.check.subject import Subject
from hf_sched.scheduler.resume import OnResume
from hf_sched.schedules import registry
from hf_sched.schedules.validation import EpochsUnknown


def check_schedule(subject: Subject, horizon: Horizon) -> Iterator[Finding]:
    """Everything about the schedule that can be judged with what is known of the run."""
    name = subject.text("lr_scheduler_type")
    found = list(_check_warmup(subject, horizon, name))
    if name not in registry.available() and name not in _theirs():
        yield subject.error("lr_scheduler_type", registry.unknown_name(subject.value("lr_scheduler_type"), _theirs()))
        yield from found
        return
    yield from found
    arguments = _arguments(subject)
    if arguments is None:
        return
    arguments = dict(arguments)
    if "on_resume" in arguments:
        try:
            OnResume.parse(arguments.pop("on_resume"))
        except ValueError as error:
            yield _of(subject, "on_resume", error)
    # A warmup that does not fit is reported once, not again by each schedule.
    warmup = 0 if found else horizon.num_warmup_steps
    if name in registry.available():
        yield from _check_ours(subject, registry.entry(name), arguments, horizon, warmup)
    else:
        yield from check_builtin(subject, name, arguments, horizon, warmup)


def _theirs() -> list[str]:
    from transformers import SchedulerType

    return [str(member.value) for member in SchedulerType if member.value not in registry.available()]


def _arguments(subject: Subject) -> Mapping[str, Any] | None:
    """`lr_scheduler_kwargs`; None where it is no mapping, which `values.py` says."""
    given = subject.value("lr_scheduler_kwargs")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except json.JSONDecodeError:
            return None
    return {} if given is None else given if isinstance(given, Mapping) else None


def _check_warmup(subject: Subject, horizon: Horizon, name: str) -> Iterator[Finding]:
    total, warmup = horizon.num_training_steps, horizon.num_warmup_steps
    if total is not None and warmup >= total > 0:
        yield subject.error(
            "warmup_steps",
            f"is a warmup of {warmup} steps in a run of {total} ({horizon.source}), which so never reaches its "
            "learning rate: write fewer, or a share of the run (warmup_steps: 0.05)",
        )
    elif (
        name in ("constant", "reduce_lr_on_plateau", "greedy")
        and "warmup_steps" in subject.given
        and subject.number("warmup_steps")
    ):
        instead = ": write lr_scheduler_type: constant_with_warmup" if name == "constant" else ": leave it out"
        yield subject.error("warmup_steps", f"is ignored by `lr_scheduler_type: {name}`{instead}")


def _check_ours(
    subject: Subject, entry: registry.Entry, arguments: dict[str, Any], horizon: Horizon, warmup: int
) -> Iterator[Finding]:
    found = list(_check_arguments(subject, entry, arguments))
    yield from found
    peak = subject.number("learning_rate")
    if found:
        yield from _check_floor(subject, arguments, peak)
        return
    try:
        entry.read(arguments)
    except ValueError as error:
        yield _of(subject, named_in(str(error), arguments), error)
        return
    total = horizon.num_training_steps
    if total is None:
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
        except ValueError as error:
            yield _of(subject, named_in(str(error), arguments), error)
    for warning in caught:
        if warning.category is UserWarning:
            text = str(warning.message).removeprefix(f"{entry.name}: ")
            yield subject.warning(
                "lr_scheduler_kwargs" if arguments else "lr_scheduler_type", f"{text} ({horizon.source})"
            )


def _check_arguments(subject: Subject, entry: registry.Entry, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """Each argument by itself, so that every mistake is reported and not the first alone."""
    needed = [name for name, value in entry.parameters.items() if value.default is value.empty]
    missing = [name for name in needed if arguments.get(name) is None]
    for name in missing:
        yield subject.error(
            "lr_scheduler_kwargs", f"{entry.name} needs the argument `{name}`: see `hf-sched show {entry.name}`"
        )
    for name, value in arguments.items():
        try:
            if name not in entry.arguments:
                entry.read({name: value})
            elif not missing:
                entry.read({name: value, **{other: arguments[other] for other in needed}})
        except ValueError as error:
            if name in entry.arguments and name not in needed and any(f"`{other}`" in str(error) for other in needed):
                continue  # it is the other one's
            yield _of(subject, name, error)


def _check_floor(subject: Subject, arguments: Mapping[str, Any], peak: float | None) -> Iterator[Finding]:
    try:
        floor = float(arguments.get("min_lr") or 0)
    except (TypeError, ValueError):
        return
    if peak is not None and floor > peak > 0:
        yield subject.error(
            "lr_scheduler_kwargs.min_lr",
            f"must be at most the `learning_rate` {peak:g}, received {floor:g}: write less, or "
            "floor_ratio, a share of the peak",
        )


def _of(subject: Subject, name: str | None, error: Exception) -> Finding:
    key = f"lr_scheduler_kwargs.{name}" if name else "lr_scheduler_kwargs"
    if not name and not subject.given.get("lr_scheduler_kwargs"):
        key = "lr_scheduler_type"
    return subject.error(key, str(error).removeprefix(f"`{name}` "))
