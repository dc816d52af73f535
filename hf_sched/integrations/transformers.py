"""Makes the registered names values of `lr_scheduler_type`. The only file that touches transformers' private tables.

transformers has no way to register a schedule: `SchedulerType`, an enum, lists the names it accepts, and
`TYPE_TO_SCHEDULER_FUNCTION` the functions behind them. Both are extended in place, when transformers is imported if it
is not yet. So that every parser built later offers the names, each enum member must exist as soon as the enum does; the
table of functions comes in another module, sometimes much later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from enum import Enum
from functools import partial, wraps
from types import ModuleType
from typing import Any, Optional, Union

from hf_sched.integrations.deepspeed import check_no_scheduler_block
from hf_sched.integrations.post_import import when_imported
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry
from hf_sched.schedules.phases import Phase
from hf_sched.schedules.validation import EpochsUnknown

SUPPORTED = "transformers 4.57 to 5.x"

refuse: Callable[[ImportError], None] | None = None
"""What is done with a transformers that cannot be extended; None: it is raised. `hf-sched run` only tells of it."""

_installed = False
_enum: Any = None
_table: dict[Any, Any] | None = None
# Of the Trainer that is making its scheduler just now.
_steps_per_epoch: ContextVar[float | None] = ContextVar("steps_per_epoch", default=None)


def install() -> None:
    """Extend transformers' tables now, or as soon as it is imported."""
    global _installed
    if _installed:  # hf_sched was reloaded
        return
    _installed = True
    when_imported("transformers", _watch_imports)
    registry.on_register(_add)


def _watch_imports() -> None:
    from wrapt import register_post_import_hook

    register_post_import_hook(_or_refuse(_extend_enum), "transformers.trainer_utils")
    register_post_import_hook(_or_refuse(_extend_table), "transformers.optimization")
    register_post_import_hook(_or_refuse(_extend_training_arguments), "transformers.training_args")
    register_post_import_hook(_or_refuse(_extend_trainer), "transformers.trainer")


def _or_refuse(extend: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def hook(module: ModuleType) -> None:
        try:
            extend(module)
        except ImportError as error:
            if refuse is None:
                raise
            refuse(error)

    return hook


def _extend_enum(module: ModuleType) -> None:
    global _enum
    enum = getattr(module, "SchedulerType", None)
    if not (isinstance(enum, type) and issubclass(enum, Enum) and issubclass(enum, str)):
        raise _unsupported("trainer_utils.SchedulerType")
    _enum = enum
    builtin = [member.value for member in enum if member.value not in registry.available()]

    def _missing_(cls: type[Enum], value: object) -> None:
        raise ValueError(registry.unknown_name(value, builtin))

    enum._missing_ = classmethod(_missing_)  # type: ignore[assignment]
    for name in registry.available():
        _add(name)


def _extend_table(module: ModuleType) -> None:
    global _table
    table = getattr(module, "TYPE_TO_SCHEDULER_FUNCTION", None)
    if not isinstance(table, dict):
        _remove_all()
        raise _unsupported("optimization.TYPE_TO_SCHEDULER_FUNCTION")
    _table = table
    for name in registry.available():
        _add(name)


def _extend_training_arguments(module: ModuleType) -> None:
    cls: Any = getattr(module, "TrainingArguments", None)
    if not hasattr(cls, "__post_init__"):
        _remove_all()
        raise _unsupported("training_args.TrainingArguments.__post_init__")
    if not hasattr(cls.__post_init__, "_checks_schedules"):
        whole_warmup = cls.__annotations__.get("warmup_steps") is int  # transformers 4: a share is `warmup_ratio`
        if whole_warmup:
            _let_parsers_read(cls.__annotations__)
        cls.__post_init__ = _with_check(cls.__post_init__, whole_warmup)
        cls.__setstate__ = _set_state


def _let_parsers_read(hints: dict[str, Any]) -> None:
    """Have the parsers of transformers 4 take what those of 5 do.

    That is a share as `warmup_steps`, and JSON as `lr_scheduler_kwargs` (refused up to 4.57.4, transformers#41322).
    """
    hints["warmup_steps"] = float
    hints["lr_scheduler_kwargs"] = Optional[Union[dict, str]]  # noqa: UP007, UP045 (as they are written there)


def _extend_trainer(module: ModuleType) -> None:
    """What only a Trainer can give: the optimizer steps of an epoch ("1ep"), what a resume loads, and the guard."""
    cls: Any = getattr(module, "Trainer", None)
    wrapped = ("set_initial_training_values", "create_scheduler", "log")
    missing = [f"Trainer.{name}" for name in wrapped if not hasattr(cls, name)]
    if not isinstance(getattr(module, "DEFAULT_CALLBACKS", None), list):
        missing.append("DEFAULT_CALLBACKS")
    if missing:
        _remove_all()
        raise _unsupported(f"trainer.{missing[0]}")
    if not hasattr(cls.create_scheduler, "_is_watched"):
        cls.set_initial_training_values = _noting_steps_per_epoch(cls.set_initial_training_values)
        cls.create_scheduler = _watching_the_scheduler(cls.create_scheduler)
        cls.log = _adding_learning_rates(cls.log)
        if hasattr(cls, "_load_optimizer_and_scheduler"):  # without it torch's own error has to do
            cls._load_optimizer_and_scheduler = _checking_the_groups(cls._load_optimizer_and_scheduler)
        from hf_sched.callbacks.guard import LearningRateGuard

        module.DEFAULT_CALLBACKS.append(LearningRateGuard)


def _noting_steps_per_epoch(set_initial_training_values: Any) -> Any:
    @wraps(set_initial_training_values)
    def noting(self: Any, args: Any, dataloader: Any, *others: Any) -> Any:
        from transformers.trainer_utils import has_length

        values = set_initial_training_values(self, args, dataloader, *others)
        self._hf_sched_steps_per_epoch = values[1] if has_length(dataloader) else None
        return values

    return noting


def _watching_the_scheduler(create_scheduler: Any) -> Any:
    """`create_scheduler`, which is told of the epochs; a built-in schedule then watches the states that it loads."""

    @wraps(create_scheduler)
    def watching(self: Any, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        name = str(getattr(self.args.lr_scheduler_type, "value", self.args.lr_scheduler_type))
        given = self.args.lr_scheduler_kwargs
        token = _steps_per_epoch.set(getattr(self, "_hf_sched_steps_per_epoch", None))
        ours = name in registry.available()
        on_resume, others = split_on_resume(given) if not ours and isinstance(given, dict) else (None, given)
        try:
            self.args.lr_scheduler_kwargs = others  # transformers' own schedules know no `on_resume`
            scheduler = create_scheduler(self, num_training_steps, *args, **kwargs)
        finally:
            self.args.lr_scheduler_kwargs = given
            _steps_per_epoch.reset(token)
        if not ours and scheduler is not None:
            from hf_sched.scheduler.builtin_resume import watch_loading

            watch_loading(scheduler, name, on_resume, num_training_steps)
        return scheduler

    watching._is_watched = True  # type: ignore[attr-defined]
    return watching


def _adding_learning_rates(log: Any) -> Any:
    """`log`, which asks our callbacks first: as callbacks they would come behind the trackers of `report_to`."""

    @wraps(log)
    def adding(self: Any, logs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        from hf_sched.callbacks.learning_rate_log import LearningRateLog
        from hf_sched.callbacks.live_cooldown import LiveControl

        for callback in self.callback_handler.callbacks:
            if isinstance(callback, LearningRateLog):
                callback.add_to(logs)
            elif isinstance(callback, LiveControl):
                callback.correct(logs)
        return log(self, logs, *args, **kwargs)

    return adding


def _checking_the_groups(load_optimizer_and_scheduler: Any) -> Any:
    """Refuse another number of parameter groups in our words, before the optimizer is given the checkpoint's state."""

    @wraps(load_optimizer_and_scheduler)
    def checking(self: Any, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        from hf_sched.scheduler.schedule_lr import ScheduleLR

        if checkpoint is not None and isinstance(self.lr_scheduler, ScheduleLR):
            self.lr_scheduler.check_groups(checkpoint)
        return load_optimizer_and_scheduler(self, checkpoint, *args, **kwargs)

    return checking


def _unsupported(what: str) -> ImportError:
    import transformers

    return ImportError(
        f"hf_sched supports {SUPPORTED}, but transformers {transformers.__version__} has no `{what}` that it can "
        "extend, so it registered nothing: install a supported transformers, or a newer hf_sched"
    )


def _add(name: str) -> None:
    """Make a registered name a member of the enum, and give it its function; whichever of the two is loaded."""
    if _enum is not None and name not in _enum._value2member_map_:
        _add_member(_enum, name)
    if _enum is not None and _table is not None:
        _table[_enum(name)] = partial(_make_scheduler, name)


def _make_scheduler(
    schedule_name: str,
    optimizer: Any,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    last_epoch: int = -1,
    **kwargs: Any,
) -> Any:
    """Called as transformers calls the functions of its own table."""
    from hf_sched.scheduler.schedule_lr import make_scheduler  # imports torch

    return make_scheduler(
        schedule_name, optimizer, num_warmup_steps, num_training_steps, kwargs, _steps_per_epoch.get(), last_epoch
    )


def _add_member(enum: Any, value: str) -> None:
    """What the enum's metaclass does for a member in the class body (CPython 3.10 to 3.14)."""
    member = str.__new__(enum, value)
    # REDUCE_ON_PLATEAU, for one, is not called after its value: no name of ours may take the place of such a member.
    member._name_ = value.upper() if value.upper() not in enum._member_map_ else f"{value.upper()}_"
    member._value_ = value
    member._sort_order_ = len(enum._member_names_)
    member.__objclass__ = enum
    # A pickle of it (`training_args.bin`) must load where hf_sched is not installed, so it holds the bare text.
    member.__reduce_ex__ = lambda protocol: (str, (value,))
    # Copying goes by the pickle on Python 3.10; a copy must stay the member.
    enum.__copy__ = lambda self: self  # which is looked for on the class
    member.__deepcopy__ = lambda memo: member
    type.__setattr__(enum, member._name_, member)
    enum._member_names_.append(member._name_)
    enum._member_map_[member._name_] = member
    enum._value2member_map_[value] = member
    if hasattr(enum, "_hashable_values_"):
        enum._hashable_values_.append(value)


def _remove_all() -> None:
    """Take back what was registered, so that a transformers that fits only half gets nothing."""
    global _enum, _table
    for name in registry.available() if _enum is not None else ():
        member = _enum._value2member_map_.pop(name)
        _enum._member_names_.remove(member._name_)
        del _enum._member_map_[member._name_]
        type.__delattr__(_enum, member._name_)
        if hasattr(_enum, "_hashable_values_"):
            _enum._hashable_values_.remove(name)
        if _table is not None:
            _table.pop(member, None)
    _enum = _table = None


def _with_check(post_init: Any, whole_warmup: bool) -> Any:
    """`TrainingArguments.__post_init__`, then a check of the schedule's arguments as far as they can be judged yet."""

    @wraps(post_init)
    def checked_post_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if whole_warmup:
            _write_share_as_ratio(self)
        post_init(self, *args, **kwargs)
        name = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        given = self.lr_scheduler_kwargs or {}
        if name not in registry.available():
            split_on_resume(given if isinstance(given, dict) else None)  # which reads it
            return
        if not isinstance(given, dict):
            raise ValueError(f"`lr_scheduler_kwargs` must be a mapping, or one in JSON, received {given!r}")
        entry = registry.entry(name)
        if given:
            self.lr_scheduler_kwargs = _plain(given)
        _, given = split_on_resume(given)
        entry.read(given)
        check_no_scheduler_block(self, name)
        if name == "lars_warmup":
            from hf_sched.scheduler.lars import check_no_deepspeed  # imports torch, as TrainingArguments has

            check_no_deepspeed(bool(getattr(self, "deepspeed", None)))
        if self.max_steps > 0:
            with suppress(EpochsUnknown):  # known when the Trainer has its data
                entry.build(self.max_steps, self.get_warmup_steps(self.max_steps), given)

    checked_post_init._checks_schedules = True  # type: ignore[attr-defined]
    return checked_post_init


def _write_share_as_ratio(args: Any) -> None:
    """`warmup_steps: 0.05` as transformers 4 knows it, where `warmup_steps` must be an int."""
    steps = args.warmup_steps
    if isinstance(steps, float) and 0 < steps < 1:
        args.warmup_steps, args.warmup_ratio = 0, steps
    elif isinstance(steps, float) and steps.is_integer():
        args.warmup_steps = int(steps)


def _plain(value: Any) -> Any:
    """Phases made in Python as the text that they are written as, since arguments are saved and logged as JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Phase) else value


def _set_state(self: Any, state: dict[str, Any]) -> None:
    """Unpickle, and turn the bare text that stands for one of our members back into the member."""
    self.__dict__.update(state)
    if _enum is not None and state.get("lr_scheduler_type") in registry.available():
        self.lr_scheduler_type = _enum(state["lr_scheduler_type"])
