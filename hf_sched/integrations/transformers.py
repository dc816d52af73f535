"""Makes the registered names values of `lr_scheduler_type` in transformers.

transformers has no registration API: `SchedulerType`, an enum, lists the accepted names, and
`TYPE_TO_SCHEDULER_FUNCTION` maps them to functions. Both are extended in place, now or when transformers is imported.
Every parser that is built later must offer the names, so the members are added as soon as the enum exists; the table
is in another module, which may be imported much later.

Only these two are mandatory. Everything else is an optional hook (`hf_sched.integrations.trainer_hooks`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any

from hf_sched.integrations import trainer_hooks
from hf_sched.integrations.post_import import when_imported
from hf_sched.schedules import registry

SUPPORTED = "transformers 4.57 to 5.x"

on_unsupported: Callable[[ImportError], None] | None = None
"""Handles the error if the enum or the table cannot be extended; None raises it."""

_installed = False
_enum: Any = None
_table: dict[Any, Any] | None = None


def install() -> None:
    """Extend transformers now, or when it is imported."""
    global _installed
    if not _installed:  # hf_sched may be reloaded
        when_imported("transformers", _register_hooks)
        registry.on_register(_add)
        _installed = True


def scheduler_function(name: str) -> Callable[..., Any]:
    """The function that `transformers.get_scheduler` calls for a name."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    function: Callable[..., Any] = {key.value: made_by for key, made_by in TYPE_TO_SCHEDULER_FUNCTION.items()}[name]
    return function


def _register_hooks() -> None:
    from wrapt import register_post_import_hook

    register_post_import_hook(_extend_enum, "transformers.trainer_utils")
    register_post_import_hook(_extend_table, "transformers.optimization")
    register_post_import_hook(trainer_hooks.attach, "transformers.training_args")
    register_post_import_hook(trainer_hooks.attach, "transformers.trainer")


def _extend_enum(module: ModuleType) -> None:
    global _enum
    enum = getattr(module, "SchedulerType", None)
    if not (isinstance(enum, type) and issubclass(enum, Enum) and issubclass(enum, str)):
        _report_unsupported("trainer_utils.SchedulerType")
        return
    _enum = enum
    builtin = [member.value for member in enum if member.value not in registry.available()]

    def _missing_(cls: type[Enum], value: object) -> None:
        raise registry.unknown_schedule(value, builtin)

    enum._missing_ = classmethod(_missing_)  # type: ignore[assignment]
    for name in registry.available():
        _add(name)


def _extend_table(module: ModuleType) -> None:
    global _table
    table = getattr(module, "TYPE_TO_SCHEDULER_FUNCTION", None)
    if not isinstance(table, dict):
        _report_unsupported("optimization.TYPE_TO_SCHEDULER_FUNCTION")
        return
    _table = table
    for name in registry.available():
        _add(name)


def _report_unsupported(missing: str) -> None:
    import transformers

    error = ImportError(
        f"hf_sched supports {SUPPORTED}, but transformers {transformers.__version__} has no `{missing}` that can be "
        "extended, so the schedules of hf_sched cannot be used; install a supported transformers or a newer hf_sched"
    )
    if on_unsupported is None:
        raise error
    on_unsupported(error)


def _add(name: str) -> None:
    """Add a registered name to the enum and its function to the table, whichever of the two is imported."""
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
    """Make a scheduler; `transformers.get_scheduler` calls this like the functions of its own table."""
    from hf_sched.scheduler.schedule_lr import make_scheduler  # imports torch

    steps_per_epoch = trainer_hooks.steps_per_epoch.get()
    return make_scheduler(
        schedule_name, optimizer, num_warmup_steps, num_training_steps, kwargs, steps_per_epoch, last_epoch
    )


def _add_member(enum: Any, value: str) -> None:
    """Do what the enum's metaclass does for a member in the class body (CPython 3.10 to 3.14)."""
    member = str.__new__(enum, value)
    # REDUCE_ON_PLATEAU is not named after its value: none of our names may replace such a member.
    member._name_ = value.upper() if value.upper() not in enum._member_map_ else f"{value.upper()}_"
    member._value_ = value
    member._sort_order_ = len(enum._member_names_)
    member.__objclass__ = enum
    # A pickle of it (`training_args.bin`) must load where hf_sched is not installed, so it holds the plain text.
    member.__reduce_ex__ = lambda protocol: (str, (value,))
    # Python 3.10 copies by pickling; a copy must stay the member. `copy` looks these methods up on the class.
    enum.__copy__ = lambda self: self
    enum.__deepcopy__ = lambda self, memo: self
    type.__setattr__(enum, member._name_, member)
    enum._member_names_.append(member._name_)
    enum._member_map_[member._name_] = member
    enum._value2member_map_[value] = member
    if hasattr(enum, "_hashable_values_"):
        enum._hashable_values_.append(value)
