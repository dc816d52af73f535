"""Optional hooks into transformers' `TrainingArguments` and `Trainer`, one function per feature.

Each hook lists the names that it needs. If one is missing, a single warning names the features that are off, and
everything else works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from types import ModuleType
from typing import Any, Optional, Union

from hf_sched.integrations.deepspeed import check_no_scheduler_block
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry
from hf_sched.schedules.phases import Phase
from hf_sched.schedules.validation import ArgumentError, EpochsUnknown

logger = logging.getLogger(__name__)

steps_per_epoch: ContextVar[float | None] = ContextVar("steps_per_epoch", default=None)
"""Optimizer steps per epoch of the Trainer that is making its scheduler."""


@dataclass(frozen=True)
class Hook:
    """A feature, and how it attaches."""

    feature: str
    module: str
    needs: tuple[str, ...]
    """Names in the module, such as `Trainer.log`."""
    attach: Callable[[Any], None]


HOOKS: list[Hook] = []


def attach(module: ModuleType) -> None:
    """Attach the hooks of a module that has just been imported."""
    off: dict[str, list[str]] = {}
    for hook in HOOKS:
        if hook.module == module.__name__:
            missing = next(filter(None, (_missing(module, name) for name in hook.needs)), None)
            if missing:
                off.setdefault(missing, []).append(hook.feature)
            else:
                hook.attach(module)
    for name, features in off.items():
        logger.warning(
            "hf_sched: %s is off: transformers has no `%s.%s`", " and ".join(features), module.__name__, name
        )


def _missing(module: ModuleType, name: str) -> str | None:
    """The first part of a dotted name that does not exist."""
    found: Any = module
    parts = name.split(".")
    for count, part in enumerate(parts, 1):
        found = getattr(found, part, None)
        if found is None:
            return ".".join(parts[:count])
    return None


def _hook(feature: str, module: str, *needs: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        HOOKS.append(Hook(feature, f"transformers.{module}", needs, function))
        return function

    return add


def _wrap(cls: Any, method: str, around: Callable[..., Any]) -> None:
    """Replace a method; `around` is called with the original method, the object, and the arguments."""
    original = getattr(cls, method)

    @wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(original, self, *args, **kwargs)

    setattr(cls, method, wrapper)


def schedule_name(args: Any) -> str:
    """The name in `lr_scheduler_type`, which is an enum member or text."""
    return str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))


@_hook("the check of schedule arguments in TrainingArguments", "training_args", "TrainingArguments.__post_init__")
def check_arguments(module: Any) -> None:
    """Reject wrong schedule arguments before a model is loaded."""

    def around(post_init: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        post_init(self, *args, **kwargs)
        _check_schedule(self)

    _wrap(module.TrainingArguments, "__post_init__", around)


def _check_schedule(args: Any) -> None:
    """Check the schedule's arguments as far as they can be judged before the Trainer has its data."""
    name, given = schedule_name(args), args.lr_scheduler_kwargs or {}
    if not isinstance(given, dict):
        if name in registry.available():
            raise ArgumentError("lr_scheduler_kwargs", "a mapping, or one in JSON", given)
        return
    _, arguments = split_on_resume(given)
    if name not in registry.available():
        return
    entry = registry.entry(name)
    if given:
        args.lr_scheduler_kwargs = _as_json_values(given)
    entry.read(arguments)
    check_no_scheduler_block(args, name)
    if name == "lars_warmup":
        from hf_sched.scheduler.lars import check_no_deepspeed  # imports torch

        check_no_deepspeed(bool(getattr(args, "deepspeed", None)))
    if args.max_steps > 0:
        with suppress(EpochsUnknown):  # the Trainer knows them later
            entry.build(args.max_steps, args.get_warmup_steps(args.max_steps), arguments)


def _as_json_values(value: Any) -> Any:
    """Phases made in Python as text, since the Trainer saves and logs its arguments as JSON."""
    if isinstance(value, dict):
        return {key: _as_json_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json_values(item) for item in value]
    return str(value) if isinstance(value, Phase) else value


@_hook("restoring `lr_scheduler_type` from `training_args.bin`", "training_args", "TrainingArguments", "SchedulerType")
def restore_enum_member(module: Any) -> None:
    """Turn the plain text in a pickle back into the enum member."""
    cls = module.TrainingArguments
    previous = getattr(cls, "__setstate__", lambda self, state: self.__dict__.update(state))

    def set_state(self: Any, state: dict[str, Any]) -> None:
        previous(self, state)
        if getattr(self, "lr_scheduler_type", None) in registry.available():
            self.lr_scheduler_type = module.SchedulerType(self.lr_scheduler_type)

    cls.__setstate__ = set_state


@_hook("reading transformers 5 arguments in transformers 4", "training_args", "TrainingArguments.__post_init__")
def accept_arguments_of_transformers_5(module: Any) -> None:
    """Accept a fraction as `warmup_steps`, and JSON as `lr_scheduler_kwargs` (rejected before 4.57.4)."""
    cls = module.TrainingArguments
    if cls.__annotations__.get("warmup_steps") is not int:
        return
    cls.__annotations__["warmup_steps"] = float
    cls.__annotations__["lr_scheduler_kwargs"] = Optional[Union[dict, str]]  # noqa: UP007, UP045 (as parsers expect)

    def around(post_init: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        steps = self.warmup_steps
        if isinstance(steps, float) and 0 < steps < 1:
            self.warmup_steps, self.warmup_ratio = 0, steps
        elif isinstance(steps, float) and steps.is_integer():
            self.warmup_steps = int(steps)
        post_init(self, *args, **kwargs)

    _wrap(cls, "__post_init__", around)


@_hook("durations in epochs (`1ep`)", "trainer", "Trainer.set_initial_training_values", "Trainer.create_scheduler")
def provide_steps_per_epoch(module: Any) -> None:
    """Pass the Trainer's epoch length to the schedule."""

    def around_values(set_initial_training_values: Any, self: Any, args: Any, dataloader: Any, *others: Any) -> Any:
        values = set_initial_training_values(self, args, dataloader, *others)
        self._hf_sched_steps_per_epoch = values[1] if _has_length(dataloader) else None
        return values

    def around_scheduler(create_scheduler: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        token = steps_per_epoch.set(getattr(self, "_hf_sched_steps_per_epoch", None))
        try:
            return create_scheduler(self, *args, **kwargs)
        finally:
            steps_per_epoch.reset(token)

    _wrap(module.Trainer, "set_initial_training_values", around_values)
    _wrap(module.Trainer, "create_scheduler", around_scheduler)


def _has_length(dataloader: Any) -> bool:
    try:
        return len(dataloader) is not None
    except TypeError:  # a dataset without a length
        return False


@_hook("`on_resume` with transformers' own schedules", "trainer", "Trainer.train", "Trainer.create_scheduler")
def resume_builtin_schedules(module: Any) -> None:
    """Check what a built-in scheduler loads on a resume; without a resume it is left as transformers made it."""

    def around_train(train: Any, self: Any, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._hf_sched_resumes = bool(resume_from_checkpoint)
        return train(self, resume_from_checkpoint, *args, **kwargs)

    def around_scheduler(create_scheduler: Any, self: Any, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        name, given = schedule_name(self.args), self.args.lr_scheduler_kwargs
        if name in registry.available() or not isinstance(given, (dict, type(None))):
            return create_scheduler(self, num_training_steps, *args, **kwargs)
        on_resume, others = split_on_resume(given)
        try:
            self.args.lr_scheduler_kwargs = others  # transformers' functions have no argument `on_resume`
            scheduler = create_scheduler(self, num_training_steps, *args, **kwargs)
        finally:
            self.args.lr_scheduler_kwargs = given
        if scheduler is not None and getattr(self, "_hf_sched_resumes", False):
            from hf_sched.scheduler.builtin_resume import check_next_load

            check_next_load(scheduler, name, on_resume, num_training_steps)
        return scheduler

    _wrap(module.Trainer, "train", around_train)
    _wrap(module.Trainer, "create_scheduler", around_scheduler)


@_hook("the learning-rate guard", "trainer", "DEFAULT_CALLBACKS")
def add_guard(module: Any) -> None:
    """Add the guard to the callbacks of every Trainer."""
    from hf_sched.callbacks.guard import LearningRateGuard

    module.DEFAULT_CALLBACKS.append(LearningRateGuard)


@_hook("the log lines of LearningRateLog and LiveControl", "trainer", "Trainer.log")
def add_to_log_lines(module: Any) -> None:
    """Complete the log before the callbacks of `report_to` see it; callbacks of the user run after those."""

    def around(log: Any, self: Any, logs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        from hf_sched.callbacks.learning_rate_log import LearningRateLog
        from hf_sched.callbacks.live_cooldown import LiveControl

        for callback in self.callback_handler.callbacks:
            if isinstance(callback, LearningRateLog):
                callback.add_to(logs)
            elif isinstance(callback, LiveControl):
                callback.correct(logs)
        return log(self, logs, *args, **kwargs)

    _wrap(module.Trainer, "log", around)


@_hook("the check of parameter groups on a resume", "trainer", "Trainer._load_optimizer_and_scheduler")
def check_parameter_groups(module: Any) -> None:
    """Reject another number of parameter groups before torch's less helpful error."""

    def around(load: Any, self: Any, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        from hf_sched.scheduler.schedule_lr import ScheduleLR

        if checkpoint is not None and isinstance(self.lr_scheduler, ScheduleLR):
            self.lr_scheduler.check_groups(checkpoint)
        return load(self, checkpoint, *args, **kwargs)

    _wrap(module.Trainer, "_load_optimizer_and_scheduler", around)
