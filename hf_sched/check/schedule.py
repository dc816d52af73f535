"""The learning-rate schedule: its name, its arguments, and whether warmup, cycles and floor fit the run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hf_sched.callbacks.time_budget import foreign_schedule
from hf_sched.check.finding import Finding, as_yaml
from hf_sched.check.subject import KWARGS, Subject
from hf_sched.integrations.builtin_schedules import FOLLOWING_A_METRIC, multiplier, parameters, readers
from hf_sched.plan.dataset_size import find_dataset_size
from hf_sched.plan.plan import find_length, find_units, horizon_notes, planned_groups, planned_hyperparameters
from hf_sched.plan.run_length import Batching
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.scheduler.resume import OnResume, split_on_resume
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.validation import NO_UNITS, ArgumentError, DurationUnknown, StepUnits, unknown_argument


@dataclass
class Length:
    """The length of a run."""

    num_training_steps: int | None = None
    source: str = ""
    """How the length is known, for messages."""
    units: StepUnits = NO_UNITS
    laid_out_for: int | None = None
    """The horizon of the schedule; by default the length."""
    num_warmup_steps: int = 0
    """0 if it is a share of an unknown length."""


def check_schedule(subject: Subject) -> Iterator[Finding]:
    """Check everything about the schedule that can be judged with what is known about the run."""
    from transformers import SchedulerType

    if subject.get("anneal_from"):
        subject.not_judged.append("the schedule: it is the cooldown of another run's checkpoint (`anneal_from`)")
        return
    written = subject.get(KWARGS)
    try:
        name, arguments = schedule_text.read(subject.get("lr_scheduler_type"), written)
    except ArgumentError as error:
        key = "lr_scheduler_type"
        yield subject.rejected(error) if error.name == key else subject.error(key, str(error))
        return
    length = _find_length(subject, name, arguments)
    yield from _check_warmup(subject, length, name)
    builtin = [str(member.value) for member in SchedulerType if member.value not in registry.available()]
    if name not in (*registry.available(), *builtin):
        yield subject.rejected(registry.unknown_schedule(name, builtin))
        return
    if name in builtin and subject.get("time_budget") is not None:
        yield subject.rejected(foreign_schedule(name))
    if name in FOLLOWING_A_METRIC and subject.get("eval_strategy") == "no":
        rule = f"{name} depends on evaluations"
        yield subject.error("lr_scheduler_type", f"{rule}: write eval_strategy: steps or epoch")
    if KWARGS in subject.wrong:
        return
    try:
        if "on_resume" in arguments:
            OnResume.parse(arguments.pop("on_resume"))
    except ArgumentError as error:
        yield subject.rejected(error, KWARGS)
    if "warmup_steps" in subject.wrong:  # reported once, not again by each schedule
        length.num_warmup_steps = 0
    yield from (_check_ours if name in registry.available() else _check_builtin)(subject, name, arguments, length)
    yield from _check_others(subject, name, arguments, length)
    optimizer = str(subject.get("optim"))
    if optimizer.startswith("schedule_free") and _decays(name, arguments, length):
        rule = f"{name} lowers the learning rate, but `optim: {optimizer}` requires a constant one after the warmup"
        yield subject.warning("lr_scheduler_type", f"{rule}: write constant_with_warmup")


def _decays(name: str, arguments: Mapping[str, Any], length: Length) -> bool:
    total = length.num_training_steps or 1000
    try:
        drawn = NamedSchedule(name, arguments).curve(total, length.num_warmup_steps, 1.0, length.units)
    except ArgumentError:  # reported already, or its length is unknown
        return True
    return drawn is None or bool((drawn.curve[1:] < drawn.curve[:-1]).any())


def _check_warmup(subject: Subject, length: Length, name: str) -> Iterator[Finding]:
    total, warmup = length.laid_out_for, length.num_warmup_steps
    if total is not None and warmup >= total:
        rule = f"is a warmup of {warmup} steps in a run of {total} ({length.source}), which never reaches its peak"
        yield subject.error("warmup_steps", f"{rule}: write fewer, or a share of the run (warmup_steps: 0.05)")
    elif name in ("constant", *FOLLOWING_A_METRIC) and subject.get("warmup_steps"):
        remedy = "write lr_scheduler_type: constant_with_warmup" if name == "constant" else "leave it out"
        yield subject.error("warmup_steps", f"is ignored by `lr_scheduler_type: {name}`: {remedy}")


def _check_ours(subject: Subject, name: str, arguments: dict[str, Any], length: Length) -> Iterator[Finding]:
    entry, total = registry.entry(name), length.num_training_steps
    for error in _rejected_arguments(entry, arguments):
        yield subject.rejected(error, KWARGS)
    if KWARGS in subject.wrong:
        return
    peak, floor = subject.get("learning_rate"), float(arguments.get("min_lr") or 0)
    if floor > peak > 0:
        rule = f"must be at most the `learning_rate` {peak:g}, received {floor:g}"
        yield subject.error(f"{KWARGS}.min_lr", f"{rule}: write less, or use floor_ratio, a share of the peak")
    if total is None:
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            schedule = entry.build(total, length.num_warmup_steps, arguments, length.units)
    except DurationUnknown as error:
        subject.not_judged.append(f"the schedule: {error}")
    except ArgumentError as error:
        yield subject.rejected(error, KWARGS)
    else:
        with suppress(ArgumentError):  # a floor above the peak
            for note in horizon_notes(schedule, peak):
                yield subject.warning(KWARGS if subject.get(KWARGS) else "lr_scheduler_type", note)
    for warning in caught:
        if warning.category is UserWarning:
            key = KWARGS if arguments else "lr_scheduler_type"
            yield subject.warning(key, f"{warning.message} ({length.source})")


def _check_others(subject: Subject, name: str, arguments: dict[str, Any], length: Length) -> Iterator[Finding]:
    """Check the schedules of parameter groups and of other hyperparameters."""
    total, config = length.num_training_steps, subject.usable
    if total is None or subject.wrong & {KWARGS, "lr_scheduler_type"}:
        return
    run = (total, length.num_warmup_steps, subject.get("learning_rate"), length.units)
    for planned in (
        planned_groups(config, NamedSchedule(name, arguments), *run),
        planned_hyperparameters(config, total, length.units),
    ):
        try:
            list(planned)
        except DurationUnknown as error:
            subject.not_judged.append(f"the schedule: {error}")
        except ArgumentError as error:
            yield subject.rejected(error)


def _rejected_arguments(entry: registry.Entry, arguments: Mapping[str, Any]) -> Iterator[ArgumentError]:
    """All wrong arguments: each rejected one is left out, and the others are read again."""
    remaining = dict(arguments)
    while True:
        try:
            entry.read(remaining)
            return
        except ArgumentError as error:
            if error.name in remaining or error.name not in arguments:  # otherwise required, and already rejected
                yield error
            if remaining.pop(error.name, None) is None:
                return


def _find_length(subject: Subject, name: str, arguments: Mapping[str, Any]) -> Length:
    """The length from `max_steps`, or as a plan counts it."""
    config, processes = subject.usable, subject.num_processes or 1
    max_steps, warmup = subject.get("max_steps") or 0, subject.get("warmup_steps") or 0
    found = Length(max_steps, "`max_steps`") if max_steps > 0 else Length()
    try:
        samples, batching = find_dataset_size(config, subject.dataset_size), Batching.read(config, processes)
        length = find_length(config, batching, samples)
        units = find_units(config, length, batching, subject.tokens_per_sample)
    except ValueError as error:
        if max_steps <= 0 and (warmup >= 1 or name in registry.available()):
            subject.not_judged.append(f"whether warmup and schedule fit the run: {error}")
    else:
        by_data = f"{samples.samples} samples on {processes} process{'' if processes == 1 else 'es'}"
        found = Length(length.num_training_steps, found.source or by_data, units)
    found.laid_out_for = found.num_training_steps
    with suppress(ArgumentError):  # reported with the arguments of the schedule
        given = split_on_resume(arguments)[1]
        found.laid_out_for = registry.length_of(name, given, found.num_training_steps, found.units)
    found.num_warmup_steps = math.ceil((found.laid_out_for or 0) * warmup) if warmup < 1 else int(warmup)
    return found


def _check_builtin(subject: Subject, name: str, arguments: Mapping[str, Any], length: Length) -> Iterator[Finding]:
    """Check each argument by its type hint, then all of them by transformers' function."""
    yield from _check_types(subject, name, arguments)
    yield from _check_levels(subject, name, arguments)
    if KWARGS in subject.wrong:
        return
    total = length.num_training_steps or 1000  # if it is unknown, only the arguments are judged
    run = {"num_training_steps": total, "num_warmup_steps": length.num_warmup_steps}
    try:
        multiplier(name, arguments, **run, peak=subject.get("learning_rate"))
    except ArgumentError as error:
        yield subject.rejected(error)
        return
    if name in FOLLOWING_A_METRIC:
        yield from _check_metric_schedule(subject, name, arguments)
    if name == "warmup_stable_decay" and length.num_training_steps:
        used = length.num_warmup_steps + (arguments.get("num_stable_steps") or 0) + arguments["num_decay_steps"]
        if used > total:
            rule = f"needs {used} steps with warmup and stable phase, but the run has {total} ({length.source})"
            yield subject.error(f"{KWARGS}.num_decay_steps", f"{rule}: write fewer")


def _check_types(subject: Subject, name: str, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    takes = readers(name)
    for key, value in arguments.items():
        if key not in takes:
            ours = ""
            if key in ("min_lr", "floor_ratio", "min_lr_rate", "min_lr_ratio"):
                ours = "; hf_sched's schedules have `floor_ratio` and `min_lr` (`hf-sched list`)"
            yield subject.error(f"{KWARGS}.{key}", unknown_argument(key, value, takes, name).detail + ours)
            continue
        try:
            read = value if value is None else takes[key](key, value)
        except ArgumentError as error:
            yield subject.rejected(error, KWARGS)
            continue
        if isinstance(value, str) and not isinstance(read, str):  # no parser converts nested text
            yield subject.error(f"{KWARGS}.{key}", f"is text, not a number: write {as_yaml(read)} without quotes")


def _check_levels(subject: Subject, name: str, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """Find learning rates among the arguments and their defaults that contradict the peak."""
    peak = subject.get("learning_rate")
    for key, parameter in parameters(name).items():
        level, default = _value_or_default(arguments, key, parameter.default)
        if not isinstance(level, (int, float)):
            continue
        if key in ("min_lr", "lr_end") and level > peak > 0:
            rule = f"must be at most the `learning_rate` {peak:g}, is {level:g}{default}"
            yield subject.error(f"{KWARGS}.{key}", rule)
        if key == "max_lr" and level < peak:
            rule = f"must be at least the `learning_rate` {peak:g}, is {level:g}{default}"
            yield subject.error(f"{KWARGS}.{key}", f"{rule}: the rate would never rise")
        elif key == "max_lr" and default and peak > 0:
            rule = f"is {level:g}{default}: the rate may rise to {level / peak:.0f} times the `learning_rate`"
            yield subject.warning(f"{KWARGS}.{key}", f"{rule}; write the highest rate that you allow")
        if key in ("min_lr_rate", "min_lr_ratio") and not 0 <= level <= 1:
            yield subject.error(f"{KWARGS}.{key}", f"must be a share of the peak, from 0 to 1, received {level:g}")


def _check_metric_schedule(subject: Subject, name: str, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    """Find a schedule that takes better metrics for worse ones, or whose changes are too small to be applied."""
    takes = parameters(name)
    given = {key: _value_or_default(arguments, key, takes[key].default) for key in ("mode", "factor", "eps")}
    metric, greater = str(subject.get("metric_for_best_model") or "loss"), subject.get("greater_is_better")
    right = "max" if (not metric.endswith("loss") if greater is None else greater) else "min"
    mode, default = given["mode"]
    if mode != right:  # the Trainer does not pass `greater_is_better` on
        which = "greater" if right == "max" else "smaller"
        rule = f"is {mode}{default}, but {which} values of `{metric}` are better"
        yield subject.error(f"{KWARGS}.mode", f"{rule}: write mode: {right}")
    peak, (factor, _), (eps, default) = subject.get("learning_rate"), given["factor"], given["eps"]
    if 0 < peak * (1 - factor) <= eps:
        change = f"`factor` {factor:g} lowers the `learning_rate` by {peak * (1 - factor):.2g}"
        rule = f"is {eps:g}{default}, and smaller changes are not applied, but {change}"
        yield subject.error(f"{KWARGS}.eps", f"{rule}: write eps: 0.0")


def _value_or_default(arguments: Mapping[str, Any], key: str, default: Any) -> tuple[Any, str]:
    """An argument's value, and how to call it in a message if it is the default."""
    return (default, ", its default") if arguments.get(key) is None else (arguments[key], "")
