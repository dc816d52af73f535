"""Makes our schedules names of `diffusers.optimization.get_scheduler`, which has a table and an enum of its own.

That function is wrapped as diffusers.optimization is imported, so `from diffusers.optimization import get_scheduler`
gets the wrapped one if hf_sched, or `hf-sched run`, came first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from hf_sched.integrations.post_import import when_imported
from hf_sched.schedules import registry
from hf_sched.schedules.validation import did_you_mean

# Arguments of diffusers' function for its own schedules. Example scripts pass their defaults always.
_OF_THEIR_SCHEDULES = ("step_rules", "num_cycles", "power")

refuse: Callable[[ImportError], None] | None = None
"""What is done with a diffusers that cannot be extended; None: it is raised."""

_installed = False


def install() -> None:
    """Wrap diffusers' function now, or as soon as it is imported."""
    global _installed
    if _installed:
        return
    _installed = True
    when_imported("diffusers", _watch_imports)


def _watch_imports() -> None:
    from wrapt import register_post_import_hook

    register_post_import_hook(_extend, "diffusers.optimization")


def _extend(module: ModuleType) -> None:
    theirs = getattr(module, "get_scheduler", None)
    names = inspect.signature(theirs).parameters if inspect.isfunction(theirs) else {}
    missing = {"name", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"} - set(names)
    if theirs is None or missing:
        error = ImportError(
            f"hf_sched cannot extend `get_scheduler` of this diffusers: it has no {', '.join(sorted(missing))}. "
            "Install another diffusers, or use hf_sched.get_scheduler"
        )
        if refuse is None:
            raise error
        refuse(error)
    elif not hasattr(theirs, "_knows_ours"):
        module.get_scheduler = _with_ours(theirs)  # type: ignore[attr-defined]


def _with_ours(theirs: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(theirs)

    @wraps(theirs)
    def get_scheduler(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        name = str(getattr(given.arguments["name"], "value", given.arguments["name"]))
        if name not in registry.available():
            _check_it_is_theirs(name, theirs)
            return theirs(*args, **kwargs)
        from hf_sched.scheduler.schedule_lr import make_scheduler  # imports torch

        given.apply_defaults()
        arguments = {
            key: given.arguments[key]
            for key in _OF_THEIR_SCHEDULES
            if key in given.arguments and given.arguments[key] != signature.parameters[key].default
        }
        wanted = ("optimizer", "num_warmup_steps", "num_training_steps")
        optimizer, warmup_steps, steps = (given.arguments[key] for key in wanted)
        return make_scheduler(name, optimizer, warmup_steps, steps, arguments, None, given.arguments["last_epoch"])

    get_scheduler._knows_ours = True  # type: ignore[attr-defined]
    return get_scheduler


def _check_it_is_theirs(name: str, theirs: Callable[..., Any]) -> None:
    builtin = [member.value for member in theirs.__globals__.get("SchedulerType", ())]
    if builtin and name not in builtin:
        ours = registry.available()
        raise ValueError(
            f"{name!r} is not the name of a schedule{did_you_mean(name, [*ours, *builtin])} hf_sched has "
            f"{', '.join(ours)}; diffusers has {', '.join(builtin)}."
        )
