"""Makes the registered names known to `diffusers.optimization.get_scheduler`, which has its own enum and table.

The function is replaced when diffusers.optimization is imported, so hf_sched or `hf-sched run` must come before
`from diffusers.optimization import get_scheduler`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from hf_sched.integrations.attach import after_import, around, attach
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.validation import ArgumentError, unknown_argument

# diffusers' example scripts always pass these arguments, with their defaults.
_DEFAULTS = {"step_rules": None, "num_cycles": 1, "power": 1.0}


@cache  # hf_sched may be reloaded
def install() -> None:
    """Replace the function now, or when it is imported."""
    after_import("diffusers", {"optimization": attach})


@around("hf_sched's schedules in diffusers (use `hf_sched.get_scheduler`)", "diffusers.optimization", "get_scheduler")
def _get_scheduler(get_scheduler: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
    plain_name, arguments = schedule_text.read(name)
    if plain_name in registry.available():
        return _make_scheduler(name, *args, **kwargs)
    builtin = [member.value for member in import_module("diffusers.optimization").SchedulerType]
    if plain_name not in builtin:
        raise registry.unknown_schedule(plain_name, builtin, "diffusers")
    for key, value in arguments.items():
        if key not in _DEFAULTS:
            raise unknown_argument(key, value, _DEFAULTS, plain_name)
        if kwargs.get(key, _DEFAULTS[key]) != _DEFAULTS[key]:
            raise ArgumentError(key, received=kwargs[key], rule=f"is given twice: {name!r} has {value!r} already")
    return get_scheduler(plain_name, *args, **kwargs | arguments)


def _make_scheduler(
    name: str,
    optimizer: Any,
    step_rules: str | None = None,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    num_cycles: int = 1,
    power: float = 1.0,
    last_epoch: int = -1,
) -> Any:
    """Make a scheduler; the parameters are those of diffusers' `get_scheduler`."""
    from hf_sched.scheduler.schedule_lr import get_scheduler  # imports torch

    given = {"step_rules": step_rules, "num_cycles": num_cycles, "power": power}
    arguments = {key: value for key, value in given.items() if value != _DEFAULTS[key]}
    return get_scheduler(name, optimizer, num_warmup_steps, num_training_steps, arguments, last_epoch=last_epoch)
