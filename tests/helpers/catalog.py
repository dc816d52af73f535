"""The schedules of the catalogue, the arguments of their examples, and curves of other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

import hf_sched
from hf_sched.reference.description import describe
from hf_sched.schedules import registry

CATALOGUE = [
    name
    for name in hf_sched.available()
    if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog"
]
# Groups of arguments of which only one may be given.
EXCLUSIVE = (
    {"num_cycles", "first_cycle"},
    {"gamma", "decay_rate", "floor_ratio"},
    {"floor_ratio", "min_lr"},
    {"warmup", "num_warmup_steps"},
)


def example(name: str) -> dict[str, Any]:
    """The arguments in the example of a schedule's docstring."""
    arguments: dict[str, Any] = yaml.safe_load(describe(name).example)
    return arguments


def build(name: str, num_warmup_steps: int = 0, /, steps: int = 100, **kwargs: Any) -> hf_sched.Schedule:
    """The schedule of a run of 100 steps."""
    return hf_sched.build(name, num_training_steps=steps, num_warmup_steps=num_warmup_steps, **kwargs)


@contextmanager
def temporary_registrations() -> Iterator[None]:
    """Forget the schedules that are registered inside."""
    before = dict(registry._entries)
    try:
        yield
    finally:
        registry._entries.clear()
        registry._entries.update(before)
