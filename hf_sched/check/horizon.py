"""How long the run is, as far as that is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass

from hf_sched.check.subject import Subject
from hf_sched.plan import plan
from hf_sched.plan.world_size import LAUNCH_KEYS
from hf_sched.schedules import registry

# They do not change the length, and a plan refuses what this check reports by itself.
_OF_THE_SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate", "warmup_steps")


@dataclass(frozen=True)
class Horizon:
    """The length of a run."""

    num_training_steps: int | None
    num_warmup_steps: int
    """0 where it is a share of a length that nobody knows."""
    source: str
    """How it is known, for messages."""
    steps_per_epoch: float | None = None


def find_horizon(subject: Subject, wrong: Collection[str]) -> Horizon:
    """From `max_steps`, or from the plan with the size of the data; `wrong` are the keys that are of no use."""
    total, source, per_epoch = _length(subject, wrong)
    requested = max(subject.number("warmup_steps") or 0.0, 0.0)
    share = 0 < requested < 1
    if total is None:
        return Horizon(None, 0 if share else int(requested), source)
    return Horizon(total, math.ceil(total * requested) if share else int(requested), source, per_epoch)


def _length(subject: Subject, wrong: Collection[str]) -> tuple[int | None, str, float | None]:
    given = {
        key: value
        for key, value in subject.given.items()
        if key in (*subject.arguments, *LAUNCH_KEYS) and key not in (*wrong, *_OF_THE_SCHEDULE)
    }
    config = dataclasses.replace(subject.config, given={**given, "lr_scheduler_type": "constant"})
    try:
        planned = plan(config, dataset_size=subject.dataset_size, world_size=subject.world_size)
    except ValueError as error:
        steps = subject.whole("max_steps")
        if steps is not None and steps > 0:
            return steps, "`max_steps`", None
        if subject.text("lr_scheduler_type") in registry.available() or (subject.number("warmup_steps") or 0) >= 1:
            subject.not_judged.append(f"whether warmup and schedule fit the run: {error}")
        return None, "", None
    if "max_steps" in given and given["max_steps"] > 0:
        return planned.num_training_steps, "`max_steps`", planned.steps_per_epoch
    return (
        planned.num_training_steps,
        f"{planned.dataset_size.samples} samples on {planned.world_size.processes} processes",
        planned.steps_per_epoch,
    )
