"""The curves in the plot, their positions on its axis, and the figures in the table below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError

Array = npt.NDArray[np.float64]
Source = Literal["hf_sched", "transformers", "configuration", "run", "resume"]
AXES = {"Steps": "optimizer step", "Epochs": "epoch", "Tokens": "training tokens", "Hours": "hours of training"}
# A browser draws this many points without delay. They are the exact rates of evenly spaced steps.
_MOST_POINTS = 10_000


@dataclass(frozen=True)
class Scale:
    """What a step of a run is on the other axes; None if it is unknown."""

    epochs: float | None = None
    tokens: float | None = None
    hours: float | None = None

    @classmethod
    def of(cls, plan: Plan, form: RunForm) -> Scale:
        """The scale of a planned run, with the tokens and the speed of the form."""
        tokens = form.tokens_per_sample and form.tokens_per_sample * plan.effective_batch
        hours = form.seconds_per_step and form.seconds_per_step / 3600
        return cls(plan.steps_per_epoch and 1 / plan.steps_per_epoch, tokens, hours)

    def positions(self, steps: npt.NDArray[np.int64], axis: str) -> Array | npt.NDArray[np.int64]:
        """The positions of optimizer steps on an axis, one of `AXES`.

        Raises:
            ArgumentError: The size of a step on this axis is unknown.
        """
        if axis == "Steps":
            return steps
        size = {"Epochs": self.epochs, "Tokens": self.tokens, "Hours": self.hours}[axis]
        if size is None:
            missing = {"Epochs": "dataset_size", "Tokens": "tokens_per_sample", "Hours": "seconds_per_step"}[axis]
            raise ArgumentError(missing, rule=f"is required for the axis {axis.lower()!r}")
        return steps * size


@dataclass(frozen=True)
class Curve:
    """Learning rates at optimizer steps, both of shape (steps,)."""

    label: str
    source: Source
    steps: npt.NDArray[np.int64]
    rates: Array
    scale: Scale
    plan: Plan | None = None
    """None for the rates of a past run and of a resume."""

    @classmethod
    def planned(cls, label: str, source: Source, plan: Plan, form: RunForm) -> Curve:
        """The curve of a plan.

        Raises:
            ArgumentError: The schedule follows a metric.
        """
        if plan.curve is None:
            rule = f"is not known before the run: {plan.schedule_name} follows a metric"
            raise ArgumentError("learning_rate", rule=rule)
        steps = drawn_steps(len(plan.curve), plan.schedule)
        return cls(label, source, steps, plan.curve[steps], Scale.of(plan, form), plan)


def drawn_steps(total: int, schedule: Schedule | None = None) -> npt.NDArray[np.int64]:
    """The steps to draw: all of them, or in a long run a part that has the ends of all phases."""
    if total <= _MOST_POINTS:
        return np.arange(total)
    firsts = [segment.first for segment in schedule.segments] if schedule else []
    ends = [step for first in firsts for step in (first - 1, first) if step >= 0]
    return np.union1d(np.linspace(0, total - 1, _MOST_POINTS).astype(np.int64), np.array(ends, dtype=np.int64))


@dataclass(frozen=True)
class Figures:
    """Figures of a planned curve."""

    area: float
    """The sum of the learning rates of all steps."""
    mean_share: float
    """The mean learning rate as a share of the peak."""
    share_below_tenth: float
    """The share of the training samples that are trained below 10% of the peak."""

    @classmethod
    def of(cls, plan: Plan) -> Figures:
        """The figures of a plan whose curve is known. Every step trains the same number of samples."""
        assert plan.curve is not None
        peak = float(plan.curve.max())
        below = plan.curve < 0.1 * peak
        return cls(float(plan.curve.sum()), float(plan.curve.mean() / peak) if peak else 0.0, float(below.mean()))
