"""How long the run is, as far as that is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_sched.check.subject import Subject


@dataclass(frozen=True)
class Horizon:
    """The length of a run."""

    num_training_steps: int | None
    num_warmup_steps: int
    """0 where it is a share of a length that nobody knows."""
    source: str
    """How it is known, for messages."""
    steps_per_epoch: float | None = None


def find_horizon(subject: Subject) -> Horizon:
    """From `max_steps`, or from the plan with the size of the data."""
    total, source, per_epoch = _length(subject)
    asked = subject.number("warmup_steps")
    if asked is None or asked < 0:
        asked = 0
    if total is None:
        return Horizon(None, int(asked) if asked >= 1 else 0, source)
    return Horizon(total, int(asked) if asked >= 1 else math.ceil(total * asked), source, per_epoch)


def _length(subject: Subject) -> tuple[int | None, str, float | None]:
    from hf_sched.plan import plan

    try:
        planned = plan(subject.config, dataset_size=subject.dataset_size, world_size=subject.world_size)
        return planned.num_training_steps, "its plan", planned.steps_per_epoch
    except ValueError as error:
        steps = subject.whole("max_steps")
        if steps is not None and steps > 0:
            return steps, "`max_steps`", None
        subject.not_judged.append(f"whether warmup and schedule fit the run: its length is unknown ({error})")
        return None, "", None
