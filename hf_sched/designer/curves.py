"""The curves in the plot, their positions on its axis, and the figures below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.schedules.validation import ArgumentError

Array = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]
Source = Literal["hf_sched", "transformers", "configuration", "run", "resume"]
AXES = {"Steps": "optimizer step", "Epochs": "epoch", "Tokens": "training tokens", "Hours": "hours of training"}
# A browser draws this many points without delay.
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Curve:
    """Learning rates at optimizer steps, both of shape (steps,)."""

    label: str
    source: Source
    steps: Steps
    rates: Array
    plan: Plan
    """The plan of the curve. For the rates of a run or a resume: the plan whose steps they are compared with."""

    @classmethod
    def planned(cls, label: str, source: Source, plan: Plan) -> Curve:
        """The curve of a plan.

        Raises:
            ArgumentError: The schedule follows a metric.
        """
        if plan.curve is None:
            rule = f"is unknown before the run, because {plan.schedule_name} follows a metric"
            raise ArgumentError("learning_rate", rule=rule)
        firsts = [segment.first for segment in plan.schedule.segments] if plan.schedule else [0]
        steps = drawn_steps(0, len(plan.curve), firsts)
        return cls(label, source, steps, plan.curve[steps], plan)

    def positions(self, steps: Steps, axis: str, form: RunForm) -> npt.NDArray[Any]:
        """The positions of optimizer steps on an axis, one of `AXES`.

        Raises:
            ArgumentError: The form lacks what the axis needs.
        """
        sizes: dict[str, tuple[str, float | None]] = {
            "Steps": ("max_steps", 1),
            "Epochs": ("dataset_size", self.plan.steps_per_epoch and 1 / self.plan.steps_per_epoch),
            "Tokens": ("tokens_per_sample", (form.tokens_per_sample or 0) * self.plan.effective_batch),
            "Hours": ("seconds_per_step", (form.seconds_per_step or 0) / 3600),
        }
        name, size = sizes[axis]
        if not size:
            raise ArgumentError(name, rule=f"is required for the axis {axis!r}")
        return np.multiply(steps, size)


def drawn_steps(first: int, stop: int, ends: list[int] | None = None) -> Steps:
    """The steps to draw: all of them, or in a long run evenly spaced ones and the `ends` of phases."""
    if stop - first <= _MOST_POINTS:
        return np.arange(first, stop)
    even = np.linspace(first, stop - 1, _MOST_POINTS).astype(np.int64)
    return np.union1d(even, [step for end in ends or () for step in (end - 1, end) if step >= first])


def area(plan: Plan) -> float:
    """The sum of the learning rates of all steps of a plan with a curve."""
    assert plan.curve is not None
    return float(plan.curve.sum())


def share_below_tenth(plan: Plan) -> float:
    """The share of the samples that a plan with a curve trains below 10% of the peak."""
    assert plan.curve is not None
    return float((plan.curve < 0.1 * plan.curve.max()).mean())
