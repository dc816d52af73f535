"""Schedules of other hyperparameters than the learning rate: their names, their text, and what can change in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from hf_sched.schedules import schedule_text
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import (
    BOOLEAN,
    MAPPING,
    NO_UNITS,
    ArgumentError,
    StepUnits,
    suggest,
    unknown_argument,
)

Steps = TypeVar("Steps", int, npt.NDArray[np.int64])

IN_GROUPS: dict[str, tuple[str, int | None]] = {
    "weight_decay": ("weight_decay", None),
    "adam_beta1": ("betas", 0),
    "adam_beta2": ("betas", 1),
    "adam_epsilon": ("eps", None),
    "momentum": ("momentum", None),
}
"""Keys of the optimizer's groups, and the position in a value that is a pair."""
IN_TRAINER: dict[str, tuple[str, ...]] = {
    "beta": ("beta",),
    "epsilon": ("epsilon_low", "epsilon_high"),
    "epsilon_high": ("epsilon_high",),
}
"""Attributes of TRL's trainers that their losses read at each step; `epsilon` sets both unless `epsilon_high` is given.
"""
FIXED = {
    "learning_rate": "`lr_scheduler_type` schedules it",
    "temperature": (
        "TRL fixes it at the start in the sampler, and in recent versions also in the output head that computes the "
        "log-probabilities, so that samples would be scored at another temperature than they were drawn at"
    ),
    "max_completion_length": "TRL reads it when the trainer is created",
    "num_generations": "it sets the sizes of batches, which are fixed at the start",
    "per_device_train_batch_size": "it sets the sizes of batches, which are fixed at the start",
}
"""What cannot change during a run, and why."""


@dataclass(frozen=True)
class HyperparameterSchedule:
    """The requested schedule of one hyperparameter."""

    name: str
    text: str
    absolute: bool = False
    """Whether the levels are values; otherwise they are multiples of the configured value."""

    @classmethod
    def read(cls, name: str, value: object) -> HyperparameterSchedule:
        """Read one entry of `schedules`: a text, or a mapping of `schedule` and `absolute`."""
        key, known = f"schedules.{name}", (*IN_GROUPS, *IN_TRAINER)
        if name in FIXED:
            raise ArgumentError(key, rule=f"cannot change during a run: {FIXED[name]}")
        if name not in known:
            hint = suggest(name, known, ", ".join(known))
            raise ArgumentError(key, rule="is no hyperparameter with a schedule", hint=hint)
        given: Mapping[Any, Any] = value if isinstance(value, Mapping) else {"schedule": value}
        for word in given.keys() - {"schedule", "absolute"}:
            raise unknown_argument(f"{key}.{word}", given[word], ("schedule", "absolute"), key)
        text = schedule_text.check(key, given.get("schedule"))
        return cls(name, text, BOOLEAN(f"{key}.absolute", given.get("absolute", False)))

    def build(self, configured: float, num_training_steps: int, units: StepUnits = NO_UNITS) -> Schedule:
        """The schedule of a run in which the hyperparameter is configured with a value.

        Raises:
            ArgumentError: The schedule does not fit the run, or gives values that are not possible.
        """
        key = f"schedules.{self.name}"
        if not self.absolute and not configured:
            hint = f"set `{self.name}`, or `absolute: true` for levels that are values"
            raise ArgumentError(key, rule=f"is a multiple of the configured `{self.name}`, which is 0", hint=hint)
        with schedule_text.blaming(key):
            schedule = schedule_text.build_text(self.text, num_training_steps, units=units)
            values = schedule.curve(peak=self.peak(configured))
        if self.name in ("adam_beta1", "adam_beta2", "momentum") and values.max() >= 1:
            raise ArgumentError(key, "below 1 at every step", float(values.max()))
        if self.name == "beta" and ((values[:-1] == 0) & (values[1:] > 0)).any():
            rule = "cannot rise from 0: TRL computes the reference log-probabilities only while it is above 0"
            raise ArgumentError(key, rule=rule)
        return schedule

    def peak(self, configured: float) -> float:
        """The value of the level 1."""
        return 1.0 if self.absolute else configured


def read_schedules(schedules: object) -> tuple[HyperparameterSchedule, ...]:
    """Read `schedules`: the schedule of each hyperparameter, by name.

    Raises:
        ArgumentError: It is no mapping, a hyperparameter cannot change during a run, or a schedule is wrong.
    """
    given: Mapping[Any, Any] = MAPPING("schedules", schedules or {})
    return tuple(HyperparameterSchedule.read(str(name), value) for name, value in given.items())


class Rest(NamedTuple):
    """What a live cooldown leaves of a schedule: the rest is compressed, so that the last step has its last value."""

    first: int
    """The first step of the cooldown, or the step from which on it has another length."""
    position: int
    """The step of the schedule whose value the step before has."""
    steps: int

    def position_at(self, step: Steps, num_training_steps: int) -> Steps:
        """The step of the schedule, planned for `num_training_steps`, whose value a step of the run has."""
        left = num_training_steps - 1 - self.position
        return self.position - (-(step - self.first + 1) * left // self.steps)
