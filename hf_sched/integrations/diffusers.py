"""Makes the registered names known to `diffusers.optimization.get_scheduler`, which has its own enum and table.

The function is replaced when diffusers.optimization is imported, so hf_sched or `hf-sched run` must come before
`from diffusers.optimization import get_scheduler`.
"""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

from hf_sched.integrations.attach import after_import, attach, hook
from hf_sched.schedules import registry


@cache  # hf_sched may be reloaded
def install() -> None:
    """Replace the function now, or when it is imported."""
    after_import("diffusers", {"optimization": attach})


@hook("hf_sched's schedules in diffusers (use `hf_sched.get_scheduler`)", "diffusers.optimization")
def extend_get_scheduler(module: Any) -> None:
    """Let `get_scheduler` make the schedules of hf_sched."""
    original = module.get_scheduler
    builtin = [member.value for member in module.SchedulerType]

    @wraps(original)
    def get_scheduler(name: Any, *args: Any, **kwargs: Any) -> Any:
        plain_name = str(getattr(name, "value", name))
        if plain_name in registry.available():
            return _make_scheduler(plain_name, *args, **kwargs)
        if plain_name not in builtin:
            raise registry.unknown_schedule(plain_name, builtin, "diffusers")
        return original(name, *args, **kwargs)

    module.get_scheduler = get_scheduler


def _make_scheduler(
    schedule_name: str,
    optimizer: Any,
    step_rules: str | None = None,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    num_cycles: int = 1,
    power: float = 1.0,
    last_epoch: int = -1,
) -> Any:
    """Make a scheduler; the parameters are those of diffusers' `get_scheduler`."""
    from hf_sched.scheduler.schedule_lr import make_scheduler  # imports torch

    # diffusers' example scripts always pass these, with their defaults.
    given = {"step_rules": (step_rules, None), "num_cycles": (num_cycles, 1), "power": (power, 1.0)}
    arguments = {key: value for key, (value, default) in given.items() if value != default}
    return make_scheduler(schedule_name, optimizer, num_warmup_steps, num_training_steps, arguments, None, last_epoch)
