"""The run that the form describes: peak, length, warmup, batches, data, and speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from hf_sched.plan import Plan, plan
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules.validation import ArgumentError, DurationReader, Epochs, Number, Reader, Whole


class WarmupReader(Reader):
    """A number of steps, as an int, or a share of the run, as a float."""

    allowed = "a number of steps (50) or a share of the run (5%)"

    def __call__(self, name: str, value: object) -> int | float:
        duration = DurationReader()(name, value)
        if isinstance(duration, Epochs):
            raise ArgumentError(name, self.allowed, value)
        return float(duration) if isinstance(duration, Fraction) else duration


_ABOVE_ZERO = Number(0, above_low=True)
READERS: dict[str, Reader] = {
    "learning_rate": _ABOVE_ZERO,
    "max_steps": Whole(1),
    "num_train_epochs": _ABOVE_ZERO,
    "warmup_steps": WarmupReader(),
    "per_device_train_batch_size": Whole(1),
    "gradient_accumulation_steps": Whole(1),
    "num_processes": Whole(1),
    "dataset_size": Whole(1),
    "tokens_per_sample": _ABOVE_ZERO,
    "seconds_per_step": _ABOVE_ZERO,
}
"""The fields of `RunForm` in their order."""


@dataclass(frozen=True)
class RunForm:
    """A run, described by arguments of the Trainer and by what turns its steps into tokens and hours."""

    learning_rate: float = 2e-5
    max_steps: int | None = 1000
    """None: the length follows from `num_train_epochs`."""
    num_train_epochs: float = 3.0
    warmup_steps: int | float = 50
    """Below 1 a share of the run, as in transformers."""
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    num_processes: int | None = None
    dataset_size: int | None = None
    tokens_per_sample: float | None = None
    seconds_per_step: float | None = None

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> RunForm:
        """Read the texts in the form's fields; an empty one means the default, or None.

        Raises:
            ArgumentError: A text is wrong.
        """
        given = {name: READERS[name](name, text) for name, text in texts.items() if text.strip()}
        return cls(**{"max_steps": None, **given})

    @property
    def texts(self) -> dict[str, str]:
        """The texts in the form's fields."""
        return {name: "" if value is None else f"{value}" for name, value in vars(self).items()}

    @classmethod
    def of_config(cls, config: TrainingConfig, planned: Plan) -> RunForm:
        """The form for a configuration. If its fields cannot express the length, it is in steps."""
        form = cls(
            learning_rate=config.value("learning_rate", Number(0)),
            max_steps=None if config.value("max_steps") < 0 else planned.num_training_steps,
            num_train_epochs=config.value("num_train_epochs", Number(0)),
            warmup_steps=config.value("warmup_steps", WarmupReader()),
            per_device_train_batch_size=planned.per_device_train_batch_size,
            gradient_accumulation_steps=planned.gradient_accumulation_steps,
            num_processes=planned.world_size.processes,
            dataset_size=planned.dataset_size.samples,
        )
        length = form.plan(NamedSchedule("constant")).num_training_steps
        return form if length == planned.num_training_steps else replace(form, max_steps=planned.num_training_steps)

    def arguments(self, schedule: NamedSchedule) -> dict[str, Any]:
        """The `TrainingArguments` of the run under a schedule."""
        length = {"max_steps": self.max_steps} if self.max_steps else {"num_train_epochs": self.num_train_epochs}
        kwargs = {"lr_scheduler_kwargs": dict(schedule.arguments)} if schedule.arguments else {}
        return {
            "learning_rate": self.learning_rate,
            **length,
            "warmup_steps": 0 if schedule.has_own_warmup else self.warmup_steps,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "lr_scheduler_type": schedule.name,
            **kwargs,
        }

    def plan(self, schedule: NamedSchedule) -> Plan:
        """What `hf-sched plan` computes for these arguments.

        Raises:
            ValueError: An argument is wrong, or the length is unknown.
        """
        config = TrainingConfig("trainer", self.arguments(schedule))
        return plan(config, dataset_size=self.dataset_size, num_processes=self.num_processes)
