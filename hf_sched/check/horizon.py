"""The length of the run, if it is known."""

from __future__ import annotations

import dataclasses
import math

from hf_sched.check.context import Subject
from hf_sched.plan import plan
from hf_sched.plan.processes import LAUNCH_KEYS
from hf_sched.schedules import registry

# They do not change the length, and other checks report their mistakes.
_OF_THE_SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs", "learning_rate", "warmup_steps")


@dataclasses.dataclass
class Horizon:
    """The length of a run."""

    num_training_steps: int | None = None
    source: str = ""
    """How the length is known, for messages."""
    steps_per_epoch: float | None = None
    num_warmup_steps: int = 0
    """0 if it is a share of an unknown length."""


def find_horizon(subject: Subject) -> Horizon:
    """The length from `max_steps`, or from a plan with the size of the data, without the keys that are wrong."""
    left_out = (*subject.wrong, *_OF_THE_SCHEDULE, *LAUNCH_KEYS)
    known = {key: value for key, value in subject.given.items() if key in subject.arguments and key not in left_out}
    config = dataclasses.replace(subject.config, given={**known, "lr_scheduler_type": "constant"})
    steps = subject.number("max_steps") or 0 if "max_steps" in known else 0
    horizon = Horizon(int(steps), "`max_steps`") if steps > 0 else Horizon()
    warmup = max(subject.number("warmup_steps") or 0, 0)
    try:
        planned = plan(config, dataset_size=subject.dataset_size, num_processes=subject.num_processes)
    except ValueError as error:
        if steps <= 0 and (warmup >= 1 or subject.text("lr_scheduler_type") in registry.available()):
            subject.not_judged.append(f"whether warmup and schedule fit the run: {error}")
    else:
        processes = planned.world_size.processes
        by_data = f"{planned.dataset_size.samples} samples on {processes} process{'' if processes == 1 else 'es'}"
        horizon = Horizon(planned.num_training_steps, horizon.source or by_data, planned.steps_per_epoch)
    total = horizon.num_training_steps or 0
    horizon.num_warmup_steps = math.ceil(total * warmup) if warmup < 1 else int(warmup)
    return horizon
