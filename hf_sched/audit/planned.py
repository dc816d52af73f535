"""A schedule that a run requested, and its learning rates at any optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.integrations import builtin_schedules
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError

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
    group_schedule: GroupSchedule | None = field(default=None, compare=False)
    """The schedule of hf_sched as it was recorded, with resume transition, cooldown and epochs resolved."""
    first: int = field(default=0, compare=False)
    """The optimizer step, from 0, from which the plan is in force."""
    warmup_share: float | None = field(default=None, compare=False)
    """The warmup as a share of the run, if it was requested as one."""
    steps_per_epoch: float | None = field(default=None, compare=False)
    deepspeed: str | None = field(default=None, compare=False)
    """The `scheduler` in the DeepSpeed configuration."""

    def rates(self, steps: npt.ArrayLike, *, group: int = 0, peak: float | None = None) -> Array | None:
        """Compute learning rates.

        Args:
            steps: Optimizer steps from 0, in any order. Past the end, the schedule continues as it does in training.
            group: The parameter group.
            peak: The group's peak; `learning_rate` by default.

        Returns:
            Float64, one rate for each step, NaN for negative steps; None if the schedule follows a metric.

        Raises:
            ValueError: The schedule does not exist, or its arguments are wrong.
        """
        requested = np.asarray(steps, dtype=np.int64)
        inside = np.maximum(requested, 0)
        peak = self.learning_rate if peak is None else peak
        rates: Array
        if self.group_schedule is not None:
            one = slice(group, group + 1) if group < len(self.group_schedule.peaks) else slice(1)
            group_schedule = self.group_schedule
            rates = _pick(lambda first, stop: group_schedule.rates(first, stop, one)[0], inside)
        elif self.schedule is not None:
            schedule, peaks, floors = self.schedule, np.array([peak]), np.array([self.schedule.floor(peak)])
            rates = _pick(lambda first, stop: schedule.rates(first, stop, peaks, floors)[0], inside)
        elif self._multiplier is not None:
            rates = peak * np.fromiter(map(self._multiplier, inside.tolist()), np.float64, len(inside))
        else:
            return None
        return np.where(requested < 0, np.nan, rates)

    @cached_property
    def schedule(self) -> Schedule | None:
        """The curve, if the schedule is one of hf_sched."""
        if self.group_schedule is not None:
            return self.group_schedule.schedule
        if self.name not in registry.available():
            return None
        return registry.entry(self.name).build(self.total, self.warmup, dict(self.arguments), self.steps_per_epoch)

    @cached_property
    def _multiplier(self) -> Callable[[int], float] | None:
        if self.name not in registry.BUILTIN_NAMES:
            hint = "if it is your own, audit in Python, where it is registered"
            raise ArgumentError("lr_scheduler_type", "the name of a schedule", self.name, hint)
        # Of a schedule that takes no arguments, transformers ignores them.
        arguments = self.arguments if builtin_schedules.parameters(self.name) else {}
        return builtin_schedules.multiplier(
            self.name,
            num_training_steps=self.total,
            num_warmup_steps=self.warmup,
            peak=self.learning_rate,
            **arguments,
        )

    @property
    def cooldown(self) -> Cooldown | None:
        """The live cooldown, if one was requested."""
        return self.group_schedule.cooldown if self.group_schedule else None

    def with_total(self, total: int) -> Plan:
        """The same request for a run of another length."""
        warmup = self.warmup if self.warmup_share is None else math.ceil(total * self.warmup_share)
        return replace(self, total=total, warmup=warmup, group_schedule=None)

    def __str__(self) -> str:
        arguments = f" {dict(self.arguments)}" if self.arguments else ""
        cooldown = f", {self.cooldown}" if self.cooldown else ""
        return (
            f"{self.name}{arguments}, {self.total} steps, {self.warmup} of them warmup, learning rate "
            f"{self.learning_rate:.6g}{cooldown}"
        )


def _pick(rates: Callable[[int, int], Array], steps: Steps) -> Array:
    """The rates at single steps of a curve that is computed from one step to another."""
    if len(steps) > _FEW:
        first = int(steps.min())
        return rates(first, int(steps.max()) + 1)[steps - first]
    return np.array([rates(step, step + 1)[0] for step in steps.tolist()], dtype=np.float64)
