"""A design as text to copy: YAML, flags, Python, and the phase language."""

from __future__ import annotations

import json
import re
import shlex

import yaml

from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry


def as_yaml(form: RunForm, schedule: NamedSchedule) -> str:
    """The keys of a YAML file of training arguments."""
    return yaml.safe_dump(form.arguments(schedule), sort_keys=False, default_flow_style=None, width=1000).strip()


def as_flags(form: RunForm, schedule: NamedSchedule) -> str:
    """The flags of a script that reads its arguments with `HfArgumentParser`."""
    texts = {
        name: json.dumps(value) if isinstance(value, dict) else f"{value}"
        for name, value in form.arguments(schedule).items()
    }
    return " \\\n".join(shlex.join([f"--{name}", text]) for name, text in texts.items())


def as_python(form: RunForm, schedule: NamedSchedule) -> str:
    """`TrainingArguments` in Python."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in form.arguments(schedule).items())
    ours = "import hf_sched  # registers the schedule\n" if schedule.name in registry.available() else ""
    return f'{ours}from transformers import TrainingArguments\n\nargs = TrainingArguments(\n    "out",\n{arguments})'


def as_phases(schedule: NamedSchedule, plan: Plan) -> str | None:
    """A planned schedule in the phase language, warmup included; None for transformers' own schedules."""
    if plan.schedule is None:
        return None
    spec = registry.entry(schedule.name).spec(
        plan.num_training_steps, plan.num_warmup_steps, dict(schedule.arguments), plan.steps_per_epoch
    )
    text = " | ".join(map(str, spec.phases))
    if spec.min_lr is not None:
        text += f"; min_lr {spec.min_lr!r}"
    elif spec.floor_ratio:
        text += f"; floor {spec.floor_ratio!r}"
    return re.sub(r"(\d)\.0(?=%|ep)", r"\1", text)
