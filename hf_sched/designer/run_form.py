"""The run that the form describes, and a schedule in it as text to copy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_type_hints

import yaml

from hf_sched.plan import Plan, plan
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.validation import Count, Number, Positive, Reader, reader_of


@dataclass(frozen=True)
class RunForm:
    """A run, described by arguments of the Trainer and by what turns its steps into tokens and hours."""

    learning_rate: Positive = 2e-5
    max_steps: Count | None = 1000
    """None: the length follows from `num_train_epochs`."""
    num_train_epochs: Positive = 3.0
    warmup_steps: Annotated[float, Number(0, unit="steps, or below 1 a share of the run")] = 50
    per_device_train_batch_size: Count = 8
    gradient_accumulation_steps: Count = 1
    num_processes: Count | None = None
    dataset_size: Count | None = None
    tokens_per_sample: Positive | None = None
    seconds_per_step: Positive | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    """`lr_groups` and `schedules` of a configuration, and the values of the scheduled hyperparameters; no fields."""

    @classmethod
    def readers(cls) -> dict[str, Reader]:
        """The readers of the fields by their names."""
        found = {name: reader_of(hint) for name, hint in get_type_hints(cls, include_extras=True).items()}
        return {name: reader for name, reader in found.items() if reader}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> RunForm:
        """Read values or texts by field; None and an empty text mean the default, if the field has one.

        Raises:
            ArgumentError: A value is wrong.
        """
        readers, given = cls.readers(), {name: value for name, value in values.items() if value not in (None, "")}
        return cls(**{"max_steps": None, **{name: readers[name](name, value) for name, value in given.items()}})

    @classmethod
    def of_config(cls, config: TrainingConfig, planned: Plan) -> RunForm:
        """The form for a configuration. If its fields cannot express the length, it is in steps."""
        form = cls.read(
            {
                **{name: config.value(name) for name in ("learning_rate", "num_train_epochs", "warmup_steps")},
                "max_steps": None if config.value("max_steps") < 0 else planned.num_training_steps,
                "per_device_train_batch_size": planned.per_device_train_batch_size,
                "gradient_accumulation_steps": planned.gradient_accumulation_steps,
                "num_processes": planned.world_size.processes,
                "dataset_size": planned.dataset_size.samples,
            }
        )
        if form.plan(NamedSchedule("constant")).num_training_steps != planned.num_training_steps:
            form = replace(form, max_steps=planned.num_training_steps)
        names = ("lr_groups", "schedules", *planned.hyperparameters)
        return replace(form, others={name: config.get(name) for name in names if config.get(name) is not None})

    def arguments(self, schedule: NamedSchedule) -> dict[str, Any]:
        """The `TrainingArguments` of the run under a schedule."""
        length = {"max_steps": self.max_steps} if self.max_steps else {"num_train_epochs": self.num_train_epochs}
        warmup = int(self.warmup_steps) if self.warmup_steps >= 1 else self.warmup_steps
        kwargs = {"lr_scheduler_kwargs": dict(schedule.arguments)} if schedule.arguments else {}
        return {
            "learning_rate": self.learning_rate,
            **length,
            "warmup_steps": 0 if schedule.has_own_warmup else warmup,
            "per_device_train_batch_size": self.per_device_train_batch_size,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "lr_scheduler_type": schedule.name,
            **kwargs,
            **self.others,
        }

    def plan(self, schedule: NamedSchedule) -> Plan:
        """What `hf-sched plan` computes for these arguments.

        Raises:
            ValueError: An argument is wrong, or the length is unknown.
        """
        config = TrainingConfig("trainer", self.arguments(schedule))
        run: dict[str, Any] = {"dataset_size": self.dataset_size, "num_processes": self.num_processes}
        return plan(config, **run, tokens_per_sample=self.tokens_per_sample)

    def as_yaml(self, schedule: NamedSchedule) -> str:
        """The keys of a YAML file of training arguments."""
        return yaml.safe_dump(self.arguments(schedule), sort_keys=False, width=1000).strip()

    def as_flags(self, schedule: NamedSchedule) -> str:
        """The flags of a script that reads its arguments with `HfArgumentParser`."""
        given = self.arguments(schedule).items()
        flags = [(f"--{name}", json.dumps(value) if isinstance(value, dict) else f"{value}") for name, value in given]
        return " \\\n".join(map(shlex.join, flags))

    def as_python(self, schedule: NamedSchedule) -> str:
        """`TrainingArguments` in Python, which have no `lr_groups` and `schedules`."""
        given = replace(self, others={}).arguments(schedule)
        lines = [f"    {name}={value!r}," for name, value in given.items()]
        ours = ["import hf_sched  # registers the schedule"] if schedule.name in registry.available() else []
        head = ["from transformers import TrainingArguments", "", "args = TrainingArguments(", '    "out",']
        return "\n".join([*ours, *head, *lines, ")"])
