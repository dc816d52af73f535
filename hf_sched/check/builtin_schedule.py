"""transformers' own schedules: the arguments of their functions, and what these make of them."""

from __future__ import annotations

import inspect
import re
import typing
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.horizon import Horizon
from hf_sched.check.subject import Subject
from hf_sched.check.values import judge
from hf_sched.schedules.validation import did_you_mean

_FROM_THE_TRAINER = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "verbose")
_SOME_STEPS = 1000
"""The length of a run where it is unknown: only whether the arguments are taken is requested then."""


def check_builtin(
    subject: Subject, name: str, arguments: dict[str, Any], horizon: Horizon, warmup: int
) -> Iterator[Finding]:
    """Each argument by its declared type, then all of them by making the scheduler with a dummy optimizer."""
    function = _function(name)
    takes = {
        parameter.name: parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in _FROM_THE_TRAINER
    }
    if name in ("constant", "constant_with_warmup"):
        takes = {}
    found = list(_check_arguments(subject, name, arguments, takes, function))
    yield from found
    if any(finding.severity == "error" for finding in found):
        return
    refused = _make(subject, name, arguments, horizon.num_training_steps or _SOME_STEPS, warmup)
    if refused:
        yield subject.error(*refused)
        return
    yield from _check_floor(subject, name, arguments)
    if name == "warmup_stable_decay":
        yield from _check_stable(subject, arguments, horizon, warmup)


def _check_arguments(
    subject: Subject, name: str, arguments: Mapping[str, Any], takes: Mapping[str, inspect.Parameter], function: Any
) -> Iterator[Finding]:
    hints = _hints(function)
    for key, value in arguments.items():
        place = f"lr_scheduler_kwargs.{key}"
        if key in _FROM_THE_TRAINER:
            yield subject.error(place, "is set by the Trainer: leave it out")
        elif not takes:
            yield subject.error(place, f"is not an argument of {name}, which takes none: leave it out{_ours(key)}")
        elif key not in takes:
            hint = did_you_mean(key, takes)
            yield subject.error(place, f"is not an argument of {name}{hint} It takes {', '.join(takes)}{_ours(key)}")
        elif key in hints:
            # No parser reads them, so text stays text.
            complaint = judge(hints[key], value, converts_text=False)
            if complaint:
                yield subject.find(complaint.severity, place, complaint.message)


def _ours(key: str) -> str:
    """Where a floor is wanted, there are schedules that have one."""
    return "; hf_sched's schedules take it (`hf-sched list`)" if key in ("min_lr", "floor_ratio") else ""


def _function(name: str) -> Any:
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    if name == "reduce_lr_on_plateau":
        from torch.optim.lr_scheduler import ReduceLROnPlateau

        return ReduceLROnPlateau
    if name == "greedy":
        from transformers.optimization import GreedyLR

        return GreedyLR
    return TYPE_TO_SCHEDULER_FUNCTION[name]


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except (NameError, TypeError):
        return {}


def _make(subject: Subject, name: str, arguments: Mapping[str, Any], total: int, warmup: int) -> tuple[str, str] | None:
    """Make it as the Trainer does and take its first and last step; the key and the message if that fails."""
    import torch
    from transformers import get_scheduler

    peak = subject.number("learning_rate") or 1.0
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=abs(peak))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            scheduler = get_scheduler(name, optimizer, warmup, total, dict(arguments))
            for step in (warmup, total) if hasattr(scheduler, "lr_lambdas") else ():
                scheduler.lr_lambdas[0](step)
        except Exception as error:
            named = named_in(str(error), arguments)
            key = f"lr_scheduler_kwargs.{named}" if named else "lr_scheduler_kwargs"
            return (
                key if arguments else "lr_scheduler_type"
            ), f"is refused by transformers' {name}: {_instead(name, error)}"
    return None


def _instead(name: str, error: Exception) -> str:
    text = str(error)
    if "One of min_lr or min_lr_rate should be set" in text:
        return "it needs a floor, write lr_scheduler_kwargs: {min_lr_rate: 0.1} (a share of the peak) or {min_lr: ...}"
    if "num_decay_steps" in text and "missing" in text:
        return "it needs the steps of its decay, write lr_scheduler_kwargs: {num_decay_steps: N}"
    return text


def _check_floor(subject: Subject, name: str, arguments: Mapping[str, Any]) -> Iterator[Finding]:
    peak = subject.number("learning_rate")
    floor = arguments.get("lr_end", 1e-7) if name == "polynomial" else arguments.get("min_lr")
    if isinstance(floor, (int, float)) and peak and floor > peak and name not in ("reduce_lr_on_plateau", "greedy"):
        key = "lr_end" if name == "polynomial" else "min_lr"
        yield subject.error(
            f"lr_scheduler_kwargs.{key}", f"must be at most the `learning_rate` {peak:g}, received {floor:g}"
        )
    for key in ("min_lr_rate", "min_lr_ratio"):
        share = arguments.get(key)
        if isinstance(share, (int, float)) and not 0 <= share <= 1:
            yield subject.error(
                f"lr_scheduler_kwargs.{key}", f"must be a share of the peak, from 0 to 1, received {share:g}"
            )


def _check_stable(subject: Subject, arguments: Mapping[str, Any], horizon: Horizon, warmup: int) -> Iterator[Finding]:
    total = horizon.num_training_steps
    decay, stable = arguments.get("num_decay_steps"), arguments.get("num_stable_steps")
    if total is None:
        subject.not_judged.append("whether warmup, stable and decay steps fill the run: its length is unknown")
        return
    if not isinstance(decay, int):
        return
    used = warmup + decay + (stable if isinstance(stable, int) else 0)
    parts = f"{warmup} warmup + {f'{stable} stable + ' if stable is not None else ''}{decay} decay"
    if used > total:
        yield subject.error(
            "lr_scheduler_kwargs.num_decay_steps",
            f"{parts} = {used} steps do not fit into a run of {total} ({horizon.source}), so the decay is cut off: "
            f"write num_decay_steps: {max(total - used + decay, 1)} or less",
        )
    elif stable is not None and used < total:
        yield subject.warning(
            "lr_scheduler_kwargs.num_stable_steps",
            f"{parts} = {used} steps end before the run of {total} ({horizon.source}), whose rest trains at the floor: "
            "leave it out",
        )


def named_in(message: str, arguments: Mapping[str, Any]) -> str | None:
    """The argument that an error is about, if it names one."""
    places = {name: message.find(f"`{name}`") for name in arguments if f"`{name}`" in message}
    if places:
        return min(places, key=lambda name: places[name])
    return next((name for name in arguments if re.search(rf"\b{name.replace('_', '[_ ]')}\b", message)), None)
