"""A schedule that a run requested, and its learning rates at any optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.integrations import builtin_schedules
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import NO_UNITS, ArgumentError, StepUnits

Array = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]
# A schedule computes a range of steps at once; up to this many steps are computed one by one instead.
_FEW = 64


@dataclass(frozen=True)
class Plan:
    """A requested schedule. Two plans are equal if the same was requested."""

    name: str
    """`lr_scheduler_type`."""
    arguments: Mapping[str, Any]
    """`lr_scheduler_kwargs` without `on_resume`."""
    total: int
    """Optimizer steps of the run."""
    warmup: int
    """Optimizer steps of warmup."""
    learning_rate: float
    source: str = field(compare=False)
    """The file that records the request."""
    first: int = field(default=0, compare=False)
    """The optimizer step, from 0, from which the plan is in force."""
    group_schedule: GroupSchedule | None = field(default=None, compare=False)
    """The schedule of hf_sched as it was recorded, with resume transition, cooldown and epochs resolved."""
    units: StepUnits = field(default=NO_UNITS, compare=False)

    def rates(self, steps: Steps, *, group: int = 0, peak: float | None = None) -> Array | None:
        """The rates of a group with a peak (`learning_rate` by default) at steps from 0, in any order.

        Past the end, the schedule continues as it does in training. A negative step has no rate (NaN).

        Returns:
            Float64, one rate for each step; None if the schedule follows a metric.

        Raises:
            ValueError: The schedule does not exist, or its arguments are wrong.
        """
        inside = np.maximum(steps, 0)
        peak = self.learning_rate if peak is None else peak
        rates: Array
        if self.schedule is not None:
            followed = self.group_schedule or GroupSchedule(self.schedule, (peak,))
            groups = slice(group, group + 1) if group < len(followed.peaks) else slice(1)
            if len(steps) > _FEW:
                first = int(inside.min())
                rates = followed.rates(first, int(inside.max()) + 1, groups)[0, inside - first]
            else:
                rates = np.array([followed.rates(step, step + 1, groups)[0, 0] for step in inside.tolist()])
        elif self._multiplier is not None:
            rates = peak * np.fromiter(map(self._multiplier, inside.tolist()), np.float64, len(inside))
        else:
            return None
        return np.where(steps < 0, np.nan, rates)

    @cached_property
    def schedule(self) -> Schedule | None:
        """The curve, if the schedule is one of hf_sched."""
        if self.group_schedule is not None:
            return self.group_schedule.schedule
        if self.name not in registry.available():
            return None
        return registry.entry(self.name).build(self.total, self.warmup, dict(self.arguments), self.units)

    @cached_property
    def _multiplier(self) -> Callable[[int], float] | None:
        if self.name not in registry.BUILTIN_NAMES:
            hint = "if it is your own, audit in Python, where it is registered"
            raise ArgumentError("lr_scheduler_type", "the name of a schedule", self.name, hint)
        # Of a schedule that takes no arguments, transformers ignores them.
        arguments = self.arguments if builtin_schedules.parameters(self.name) else {}
        steps = {"num_training_steps": self.total, "num_warmup_steps": self.warmup}
        return builtin_schedules.multiplier(self.name, arguments, **steps, peak=self.learning_rate)

    @property
    def cooldown(self) -> Cooldown | None:
        """The live cooldown, if one was requested."""
        return self.group_schedule.cooldown if self.group_schedule else None

    def changed(self, **changes: Any) -> Plan:
        """The plan of another request, which differs in some fields."""
        return replace(self, group_schedule=None, **changes)

    def __str__(self) -> str:
        arguments = ",".join(f"{name}={value}" for name, value in self.arguments.items())
        schedule = f"{self.name}:{arguments}" if arguments else self.name
        return f"{schedule}, {self.total} steps, {self.warmup} of them warmup, learning rate {self.learning_rate:.6g}"


def in_force(plans: Sequence[Plan], number: int, steps: Steps) -> npt.NDArray[np.bool_]:
    """A mask of the steps at which plan `number` is in force. The first plan covers earlier steps too."""
    stop = plans[number + 1].first if number + 1 < len(plans) else np.inf
    return (steps < stop) & ((steps >= plans[number].first) | (number == 0))


def peak_under(plan: Plan, first: Plan, peak: float) -> float:
    """The requested peak of groups that had `peak` under the first plan. It follows the `learning_rate`."""
    return peak * plan.learning_rate / first.learning_rate if first.learning_rate else peak


def planned_rates(plans: Sequence[Plan], steps: Steps, group: int, peak: float) -> Array:
    """The rates of the plans in force at the steps; NaN where a plan has none."""
    planned = np.full(len(steps), np.nan)
    for number, plan in enumerate(plans):
        here = in_force(plans, number, steps)
        rates = plan.rates(steps[here], group=group, peak=peak_under(plan, plans[0], peak)) if here.any() else None
        if rates is not None:
            planned[here] = rates
            for segment in plan.schedule.segments if plan.schedule else ():
                if segment.trust_coefficient is not None:  # trust ratios depend on the gradients
                    planned[here & (steps >= segment.first) & (steps < segment.first + segment.steps)] = np.nan
    return planned
