"""The example of a schedule's reference: its arguments, its YAML, and its curve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from hf_sched.integrations.builtin_schedules import has_warmup
from hf_sched.reference.description import Reference
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule

# The run of all examples.
STEPS, WARMUP = 1000, 50


def kwargs(reference: Reference) -> dict[str, Any]:
    """The `lr_scheduler_kwargs` of the example."""
    import yaml

    arguments: dict[str, Any] = yaml.safe_load(reference.example or "{}")
    return arguments


def trainers_warmup(name: str, arguments: Mapping[str, Any]) -> int:
    """The `warmup_steps` to show a schedule with: 5%, or 0 if the schedule has no warmup or its own."""
    if name not in registry.available():
        return WARMUP if has_warmup(name) else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cycles that fit after a warmup need not fit without one
        alone = registry.entry(name).build(STEPS, 0, dict(arguments))
    return 0 if alone.segments[0].kind == "warmup" else WARMUP


def schedule(reference: Reference, **more: object) -> Schedule:
    """The schedule of the example (one of hf_sched), with further arguments."""
    arguments = kwargs(reference)
    return registry.entry(reference.name).build(STEPS, trainers_warmup(reference.name, arguments), arguments | more)


def yaml_text(reference: Reference) -> str:
    """The example as lines of a YAML file of training arguments."""
    warmup = trainers_warmup(reference.name, kwargs(reference))
    lines = [
        "learning_rate: 2.0e-5",
        f"warmup_steps: {warmup}" if warmup else "",
        f"lr_scheduler_type: {reference.name}",
        f"lr_scheduler_kwargs: {reference.example}" if kwargs(reference) else "",
    ]
    return "\n".join(filter(None, lines))
