"""Makes the registered names known to `diffusers.optimization.get_scheduler`, which has its own enum and table.

The function is wrapped when diffusers.optimization is imported, so hf_sched or `hf-sched run` must come before
`from diffusers.optimization import get_scheduler`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from hf_sched.integrations.post_import import when_imported
from hf_sched.schedules import registry

logger = logging.getLogger(__name__)

_NEEDED = ("name", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
# Arguments for diffusers' own schedules. Its example scripts always pass them, with their defaults.
_FOR_THEIR_SCHEDULES = ("step_rules", "num_cycles", "power")

_installed = False


def install() -> None:
    """Wrap the function now, or when it is imported."""
    global _installed
    if not _installed:
        when_imported("diffusers", _register_hook)
        _installed = True


def _register_hook() -> None:
    from wrapt import register_post_import_hook

    register_post_import_hook(_extend, "diffusers.optimization")


def _extend(module: ModuleType) -> None:
    original = getattr(module, "get_scheduler", None)
    parameters = inspect.signature(original).parameters if inspect.isfunction(original) else {}
    missing = [name for name in _NEEDED if name not in parameters]
    if original is None or missing:
        logger.warning(
            "hf_sched: its schedules in diffusers are off: diffusers.optimization.get_scheduler has no %s; use "
            "hf_sched.get_scheduler",
            ", ".join(missing),
        )
    else:
        module.get_scheduler = _with_our_names(original)  # type: ignore[attr-defined]


def _with_our_names(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @wraps(original)
    def get_scheduler(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        name = str(getattr(call.arguments["name"], "value", call.arguments["name"]))
        if name not in registry.available():
            _check_name(name, original)
            return original(*args, **kwargs)
        from hf_sched.scheduler.schedule_lr import make_scheduler  # imports torch

        call.apply_defaults()
        given = call.arguments
        arguments = {
            key: given[key]
            for key in _FOR_THEIR_SCHEDULES
            if key in given and given[key] != signature.parameters[key].default
        }
        warmup, total = given["num_warmup_steps"], given["num_training_steps"]
        return make_scheduler(name, given["optimizer"], warmup, total, arguments, None, given["last_epoch"])

    return get_scheduler


def _check_name(name: str, original: Callable[..., Any]) -> None:
    builtin = [member.value for member in original.__globals__.get("SchedulerType", ())]
    if builtin and name not in builtin:
        raise registry.unknown_schedule(name, builtin, "diffusers")
