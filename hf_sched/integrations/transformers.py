"""Makes the registered names values of `lr_scheduler_type` in transformers.

transformers has no registration API: `SchedulerType`, an enum, lists the accepted names, and
`TYPE_TO_SCHEDULER_FUNCTION` maps them to functions. Both are extended in place, now or when transformers is imported.
Every parser that is built later must offer the names, so the members are added as soon as the enum exists; the table
is in another module, which may be imported much later.

Only these two are mandatory. Everything else is an optional hook (`hf_sched.integrations.transformers_trainer`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

from hf_sched.integrations import transformers_trainer
from hf_sched.integrations.attach import after_import, attach
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry, schedule_text

SUPPORTED = "transformers 4.57 to 5.x"

_enum: Any = None
_table: dict[Any, Any] | None = None
_texts: list[str] = []
"""Names with arguments, and phases, that were used so far. They are members that no list of choices shows."""


@cache  # hf_sched may be reloaded
def install() -> None:
    """Extend transformers now, or when it is imported."""
    hooks = dict.fromkeys(("training_args", "trainer", "hf_argparser"), attach)
    after_import("transformers", {"trainer_utils": _extend_enum, "optimization": _extend_table, **hooks})
    after_import("trl", {transformers_trainer.TRL_PARSER: attach})
    registry.on_register(_add)


def scheduler_function(name: str) -> Callable[..., Any]:
    """The function that `transformers.get_scheduler` calls for a name."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    return TYPE_TO_SCHEDULER_FUNCTION[name]  # type: ignore[no-any-return]


def _extend_enum(module: ModuleType) -> None:
    global _enum
    _enum = getattr(module, "SchedulerType", None)
    if _enum is None:
        raise _unsupported("trainer_utils.SchedulerType")
    builtin = [member.value for member in _enum]

    def _missing_(cls: Any, value: Any) -> Any:
        name, arguments = schedule_text.read(value)
        if name in registry.available():
            registry.entry(name).check(split_on_resume(arguments)[1])
        elif name not in builtin:
            raise registry.unknown_schedule(name, builtin)
        if value not in cls._value2member_map_:
            _texts.append(value)
            _add(value)
        return cls._value2member_map_[value]

    _enum._missing_ = classmethod(_missing_)
    _add(*registry.names())


def _extend_table(module: ModuleType) -> None:
    global _table
    _table = getattr(module, "TYPE_TO_SCHEDULER_FUNCTION", None)
    if _table is None:
        raise _unsupported("optimization.TYPE_TO_SCHEDULER_FUNCTION")
    _add(*registry.names(), *_texts)


def _unsupported(missing: str) -> ImportError:
    import transformers

    return ImportError(
        f"hf_sched supports {SUPPORTED}, but transformers {transformers.__version__} has no `{missing}`, so the "
        "schedules of hf_sched cannot be used; install a supported transformers or a newer hf_sched"
    )


def _add(*names: str) -> None:
    """Add names and texts to the enum and their functions to the table, whichever of the two is imported."""
    for name in names if _enum is not None else ():
        if name not in _enum._value2member_map_:
            _add_member(_enum, name, is_listed=name not in _texts)
        if _table is not None:
            _table[_enum(name)] = partial(_make_scheduler, name)


def _make_scheduler(
    text: str,
    optimizer: Any,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    last_epoch: int = -1,
    **kwargs: Any,
) -> Any:
    """Make a scheduler; `transformers.get_scheduler` calls this like the functions of its own table."""
    from transformers import get_scheduler

    from hf_sched.integrations import builtin_schedules
    from hf_sched.scheduler import schedule_lr  # imports torch

    name, arguments = schedule_text.read(text, kwargs)
    if name not in registry.available():
        builtin = builtin_schedules.read_arguments(name, arguments)
        return get_scheduler(name, optimizer, num_warmup_steps, num_training_steps, builtin)
    run = (num_warmup_steps, num_training_steps, arguments)
    units = transformers_trainer.step_units.get()
    return schedule_lr.make_scheduler(name, optimizer, *run, units=units, last_epoch=last_epoch)


def _add_member(enum: Any, value: str, is_listed: bool) -> None:
    """Do what the enum's metaclass does for a member in the class body (CPython 3.10 to 3.14)."""
    member = str.__new__(enum, value)
    # REDUCE_ON_PLATEAU is not named after its value: none of our names may replace such a member.
    name = value.upper() if value.upper() not in enum._member_map_ else f"{value.upper()}_"
    member._name_ = name if is_listed else value
    member._value_ = value
    member._sort_order_ = len(enum._member_names_)
    member.__objclass__ = enum
    # A pickle of it (`training_args.bin`) must load where hf_sched is not installed, so it holds the plain text.
    member.__reduce_ex__ = lambda protocol: (str, (value,))
    # Python 3.10 copies by pickling; a copy must stay the member. `copy` looks these methods up on the class.
    enum.__copy__ = lambda self: self
    enum.__deepcopy__ = lambda self, memo: self
    enum._value2member_map_[value] = member
    if hasattr(enum, "_hashable_values_"):
        enum._hashable_values_.append(value)
    if is_listed:
        type.__setattr__(enum, member._name_, member)
        enum._member_names_.append(member._name_)
        enum._member_map_[member._name_] = member
