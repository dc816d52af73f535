"""The example in a schedule's reference: its arguments, its YAML, and its curve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from hf_sched.integrations.builtin_schedules import has_warmup
from hf_sched.reference.description import Reference
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule

# Of the run that examples are shown in.
STEPS, WARMUP = 1000, 50


def kwargs(of: Reference) -> dict[str, Any]:
    """The `lr_scheduler_kwargs` of the example."""
    import yaml

    arguments: dict[str, Any] = yaml.safe_load(of.example or "{}")
    return arguments


def trainers_warmup(name: str, arguments: Mapping[str, Any], steps: int = STEPS) -> int:
    """A `warmup_steps` to show a schedule with: a twentieth, or none where it has none or brings one of its own."""
    if name in registry.available():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cycles that fit behind a warmup need not fit without one
            alone = registry.entry(name).build(steps, 0, dict(arguments))
        takes_one = alone.segments[0].kind != "warmup"
    else:
        takes_one = has_warmup(name)
    return steps * WARMUP // STEPS if takes_one else 0


def schedule(of: Reference, **more: object) -> Schedule:
    """One of our schedules as the example has it, with further arguments."""
    return registry.entry(of.name).build(STEPS, trainers_warmup(of.name, kwargs(of)), kwargs(of) | more)


def has_floor(of: Reference) -> bool:
    """Whether one of our schedules ends on a floor, rather than refusing one; `phases` does if it is written so."""
    if "floor_ratio" in kwargs(of) or registry.entry(of.name).has_own_floor:
        return True
    try:
        schedule(of, floor_ratio=0.0)
    except ValueError:
        return False
    return True


def yaml_text(of: Reference) -> str:
    """The example as it stands in the YAML file of a training."""
    lines = ["learning_rate: 2.0e-5"]
    if warmup := trainers_warmup(of.name, kwargs(of)):
        lines.append(f"warmup_steps: {warmup}")
    lines.append(f"lr_scheduler_type: {of.name}")
    if kwargs(of):
        lines.append(f"lr_scheduler_kwargs: {of.example}")
    return "\n".join(lines)
