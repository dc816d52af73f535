"""Optional hooks into transformers' `TrainingArguments` and `Trainer`, each with the feature that it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, Optional, Union

from hf_sched.integrations.attach import around, hook, wrap
from hf_sched.integrations.deepspeed import check_no_scheduler_block
from hf_sched.scheduler.group_schedule import OWN_SCHEDULE
from hf_sched.scheduler.resume import read_schedule, read_scheduler_state, split_on_resume
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.validation import NO_UNITS, ArgumentError, DurationUnknown, StepUnits

ARGUMENTS, TRAINER = "transformers.training_args", "transformers.trainer"
UNITS = "durations in epochs (`1ep`), samples and tokens"
LAYER_WISE = "layer-wise optimizers (GaLore, APOLLO) under the schedules of hf_sched"
TRL_PARSER = "scripts._hf_argparser"  # in the package trl
COMMAND_LINES = "schedules with arguments on command lines"
BUILTIN_RESUME = "`on_resume` with transformers' own schedules"

step_units: ContextVar[StepUnits] = ContextVar("step_units", default=NO_UNITS)
"""The units of the Trainer that is training."""


@contextmanager
def using(units: StepUnits) -> Iterator[None]:
    """Let `TrainingArguments` count a warmup over a horizon in these units."""
    token = step_units.set(units)
    try:
        yield
    finally:
        step_units.reset(token)


@around("the check of schedule arguments in TrainingArguments", ARGUMENTS, "TrainingArguments.__post_init__")
def _check_schedule(post_init: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Reject wrong schedule arguments before a model is loaded, as far as they can be judged without the data."""
    text = self.lr_scheduler_type
    name, written = schedule_text.read(text)
    self.lr_scheduler_type = name  # transformers' checks know the names only
    post_init(self, *args, **kwargs)
    if written:
        self.lr_scheduler_type = type(self.lr_scheduler_type)(text)
    given = self.lr_scheduler_kwargs or {}
    if not isinstance(given, dict):
        raise ArgumentError("lr_scheduler_kwargs", "a mapping, or one in JSON", given)
    _, arguments = split_on_resume(read_schedule(self)[1])
    if name not in registry.available():
        if written:  # otherwise transformers judges them
            from hf_sched.integrations import builtin_schedules  # imports torch

            builtin_schedules.read_arguments(name, arguments)
        return
    import json  # adds a tenth to the time of `import hf_sched`

    if given:  # phases made in Python become text, since the Trainer saves and logs its arguments as JSON
        self.lr_scheduler_kwargs = json.loads(json.dumps(given, default=str))
    entry = registry.entry(name)
    entry.read(arguments)
    check_no_scheduler_block(self, name)
    if name == "lars_warmup":
        from hf_sched.scheduler.lars import check_no_deepspeed  # imports torch

        check_no_deepspeed(bool(getattr(self, "deepspeed", None)))
    if self.max_steps > 0:
        with suppress(DurationUnknown):  # the Trainer knows them later
            entry.build(self.max_steps, self.get_warmup_steps(self.max_steps), arguments)


@around(COMMAND_LINES, "transformers.hf_argparser", "HfArgumentParser.__init__")
@around(COMMAND_LINES, f"trl.{TRL_PARSER}", "HfArgumentParser.__init__")
def _accept_arguments(init: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """Let `SchedulerType` judge what argparse's `choices` would reject."""
    from transformers.trainer_utils import SchedulerType

    init(self, *args, **kwargs)
    names = [member.value for member in SchedulerType]
    for action in self._actions:
        if action.choices == names:
            action.choices = _Choices(action.choices)


class _Choices(list[str]):
    """Lists the names in a help text, and accepts everything."""

    def __contains__(self, value: object) -> bool:
        return True


@hook("restoring `lr_scheduler_type` from `training_args.bin`", ARGUMENTS)
def _restore_enum_member(module: Any) -> None:
    cls, enum = module.TrainingArguments, module.SchedulerType
    previous = getattr(cls, "__setstate__", lambda self, state: self.__dict__.update(state))

    def set_state(self: Any, state: dict[str, Any]) -> None:
        previous(self, state)
        with suppress(AttributeError, ValueError):  # a schedule of the user may be unknown here
            self.lr_scheduler_type = enum(self.lr_scheduler_type)

    cls.__setstate__ = set_state


@hook("reading transformers 5 arguments in transformers 4", ARGUMENTS)
def _accept_arguments_of_transformers_5(module: Any) -> None:
    """Accept a fraction as `warmup_steps`, and JSON as `lr_scheduler_kwargs` (rejected before 4.57.4)."""
    annotations = module.TrainingArguments.__annotations__
    if annotations.get("warmup_steps") is not int:
        return
    annotations["warmup_steps"] = float
    annotations["lr_scheduler_kwargs"] = Optional[Union[dict, str]]  # noqa: UP007, UP045 (as parsers expect)

    def read_fraction(post_init: Any, self: Any, *args: Any, **kwargs: Any) -> None:
        steps = self.warmup_steps
        if isinstance(steps, float) and 0 < steps < 1:
            self.warmup_steps, self.warmup_ratio = 0, steps
        elif isinstance(steps, float) and steps.is_integer():
            self.warmup_steps = int(steps)
        post_init(self, *args, **kwargs)

    wrap(module, "TrainingArguments.__post_init__", read_fraction)


@around(UNITS, TRAINER, "Trainer.set_initial_training_values")
def _provide_step_units(original: Any, self: Any, args: Any, dataloader: Any, *others: Any) -> Any:
    from transformers.trainer_utils import has_length

    from hf_sched.integrations.token_count import tokens_per_sample

    values = original(self, args, dataloader, *others)
    samples: int = self.get_total_train_batch_size(args)
    if getattr(args.accelerator_config, "split_batches", False):  # all processes share a batch
        samples //= args.world_size

    @cache
    def tokens_per_step() -> float:
        return samples * tokens_per_sample(dataloader.dataset, dataloader.collate_fn)

    epoch = values[1] if has_length(dataloader) else None
    step_units.set(StepUnits(epoch, samples, count_tokens=tokens_per_step))
    return values


@around("a warmup as a share of the horizon", ARGUMENTS, "TrainingArguments.get_warmup_steps")
def _lay_warmup_out(get_warmup_steps: Any, self: Any, num_training_steps: int) -> Any:
    """A warmup that is a share of the run is the share of the schedule's horizon, if it has one."""
    share = getattr(self, "warmup_steps", 0) or getattr(self, "warmup_ratio", 0) or 0
    if 0 < share < 1 and getattr(self, "lr_scheduler_type", None) is not None:
        name, arguments = read_schedule(self)
        length = registry.length_of(name, split_on_resume(arguments)[1], num_training_steps, step_units.get())
        num_training_steps = num_training_steps if length is None else length
    return get_warmup_steps(self, num_training_steps)


@around(LAYER_WISE, TRAINER, "get_scheduler")
def _make_one_scheduler(
    get_scheduler: Any,
    name: Any,
    optimizer: Any,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Make one scheduler for all inner optimizers, where transformers 4 makes one for each and hides them."""
    run = (optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs)
    if schedule_text.read(name)[0] not in registry.available():
        return get_scheduler(name, *run)
    from hf_sched.scheduler import schedule_lr  # imports torch

    return schedule_lr.make_scheduler(name, *run, units=step_units.get())


@around(BUILTIN_RESUME, TRAINER, "Trainer.train")
def _keep_resume(train: Any, self: Any, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
    self._hf_sched_resumes = bool(resume_from_checkpoint)
    if resume_from_checkpoint:
        from transformers.trainer_utils import get_last_checkpoint

        is_path = not isinstance(resume_from_checkpoint, bool)
        checkpoint = resume_from_checkpoint if is_path else get_last_checkpoint(self.args.output_dir)
        if checkpoint:
            read_scheduler_state(Path(checkpoint))  # one line if it is damaged, before anything is loaded
    return train(self, resume_from_checkpoint, *args, **kwargs)


@around("the learning-rate guard and schedules of hyperparameters", TRAINER, "Trainer.train")
def _connect_callbacks(train: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    from hf_sched.callbacks.guard import LearningRateGuard
    from hf_sched.callbacks.hyperparameter_schedules import HyperparameterSchedules
    from hf_sched.callbacks.learning_rate_log import LearningRateLog

    callbacks = self.callback_handler.callbacks
    scheduled = [callback for callback in callbacks if isinstance(callback, HyperparameterSchedules)]
    for callback in callbacks:
        if callback in scheduled:
            callback.trainer = self
        elif isinstance(callback, (LearningRateGuard, LearningRateLog)):
            callback.hyperparameters = scheduled
    # They set their values first, so that a log that begins with them knows the plan.
    self.callback_handler.callbacks = sorted(callbacks, key=lambda callback: callback not in scheduled)
    try:
        with using(NO_UNITS):
            return train(self, *args, **kwargs)
    finally:  # an error ends the training without an event
        for callback in callbacks:
            if isinstance(callback, (LearningRateGuard, HyperparameterSchedules)):
                callback.close()


@around(BUILTIN_RESUME, TRAINER, "Trainer.create_scheduler")
def _check_builtin_resume(create_scheduler: Any, self: Any, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
    """Check what a built-in scheduler loads on a resume; without a resume it is left as transformers made it."""
    name, arguments = read_schedule(self.args)
    if name in registry.available():
        return create_scheduler(self, num_training_steps, *args, **kwargs)
    if any(OWN_SCHEDULE in group for group in getattr(self.optimizer, "param_groups", ())):
        rule = "of a parameter group needs an `lr_scheduler_type` of hf_sched for the other groups"
        raise ArgumentError("schedule", rule=rule, received=name, hint="`phases` gives any curve")
    on_resume, others = split_on_resume(arguments)
    given = self.args.lr_scheduler_type, self.args.lr_scheduler_kwargs
    try:
        # transformers' functions have no argument `on_resume`.
        self.args.lr_scheduler_type, self.args.lr_scheduler_kwargs = name, others
        scheduler = create_scheduler(self, num_training_steps, *args, **kwargs)
    finally:
        self.args.lr_scheduler_type, self.args.lr_scheduler_kwargs = given
    if scheduler is not None and getattr(self, "_hf_sched_resumes", False):
        from hf_sched.scheduler.builtin_resume import check_next_load

        check_next_load(scheduler, name, on_resume)
    return scheduler


@around("schedules of hyperparameters after a resume under FSDP2", TRAINER, "Trainer.create_scheduler")
def _keep_configured_values(create_scheduler: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Keep the configured values before a checkpoint is loaded: FSDP2 fills only keys that the groups have."""
    from hf_sched.callbacks.hyperparameter_schedules import HyperparameterSchedules

    for callback in self.callback_handler.callbacks:
        if isinstance(callback, HyperparameterSchedules) and self.optimizer is not None:
            callback.keep_configured(self.optimizer)
    return create_scheduler(self, *args, **kwargs)


@hook("the learning-rate guard", TRAINER)
def _add_guard(module: Any) -> None:
    from hf_sched.callbacks.guard import LearningRateGuard

    module.DEFAULT_CALLBACKS.append(LearningRateGuard)


@around("the log lines of LearningRateLog", TRAINER, "Trainer.log")
def _add_to_log_lines(log: Any, self: Any, logs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Complete the log before the callbacks of `report_to` see it; callbacks of the user run after those."""
    from hf_sched.callbacks.hyperparameter_schedules import HyperparameterSchedules
    from hf_sched.callbacks.learning_rate_log import LearningRateLog

    for callback in self.callback_handler.callbacks:
        if isinstance(callback, LearningRateLog):
            callback.add_to(logs)
        elif isinstance(callback, HyperparameterSchedules) and "learning_rate" in logs:
            logs.update(callback.values())
    return log(self, logs, *args, **kwargs)
