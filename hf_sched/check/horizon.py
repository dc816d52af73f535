"""The length of the run, if it is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass

from hf_sched.check.subject import Subject
from hf_sched.plan import plan
from hf_sched.plan.launch import LAUNCH_KEYS
from hf_sched.schedules import registry

# They do not change the length, and other checks report their mistakes.
_OF_THE_SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate", "warmup_steps")


@dataclass(frozen=True)
class Horizon:
    """The length of a run."""

    num_training_steps: int | None
    num_warmup_steps: int
    """0 if it is a share of an unknown length."""
    source: str
    """How the length is known, for messages."""
    steps_per_epoch: float | None = None


def find_horizon(subject: Subject, wrong: Collection[str]) -> Horizon:
    """The length from `max_steps`, or from a plan with the size of the data, without the keys that are `wrong`."""
    total, source, per_epoch = _length(subject, wrong)
    requested = max(subject.number("warmup_steps") or 0.0, 0.0)
    if not 0 < requested < 1:
        return Horizon(total, int(requested), source, per_epoch)
    return Horizon(total, math.ceil((total or 0) * requested), source, per_epoch)


def _length(subject: Subject, wrong: Collection[str]) -> tuple[int | None, str, float | None]:
    given = {
        key: value
        for key, value in subject.given.items()
        if key in subject.arguments and key not in (*wrong, *_OF_THE_SCHEDULE, *LAUNCH_KEYS)
    }
    config = dataclasses.replace(subject.config, given={**given, "lr_scheduler_type": "constant"})
    steps = subject.whole("max_steps")
    has_steps = "max_steps" in given and steps is not None and steps > 0
    try:
        planned = plan(config, dataset_size=subject.dataset_size, num_processes=subject.num_processes)
    except ValueError as error:
        if has_steps:
            return steps, "`max_steps`", None
        if subject.text("lr_scheduler_type") in registry.available() or (subject.number("warmup_steps") or 0) >= 1:
            subject.not_judged.append(f"whether warmup and schedule fit the run: {error}")
        return None, "", None
    processes = planned.world_size.processes
    by_data = f"{planned.dataset_size.samples} samples on {processes} process{'' if processes == 1 else 'es'}"
    return planned.num_training_steps, "`max_steps`" if has_steps else by_data, planned.steps_per_epoch
