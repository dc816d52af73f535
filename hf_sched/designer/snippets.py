"""A design as text to copy: YAML, flags, Python, and the phase language."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from hf_sched.designer.run_form import RunForm
from hf_sched.plan import Plan
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry


def as_yaml(form: RunForm, schedule: NamedSchedule) -> str:
    """The keys of a YAML file of training arguments."""
    import yaml

    lines = []
    for name, value in form.arguments(schedule).items():
        if isinstance(value, dict):
            flow = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
            lines.append(f"{name}: {flow.strip()}")
        else:
            lines.append(yaml.safe_dump({name: value}).strip())
    return "\n".join(lines)


def as_flags(form: RunForm, schedule: NamedSchedule) -> str:
    """The flags of a script that reads its arguments with `HfArgumentParser`."""
    words = ((f"--{name}", _flag(value)) for name, value in form.arguments(schedule).items())
    return " \\\n".join(shlex.join(pair) for pair in words)


def as_python(form: RunForm, schedule: NamedSchedule) -> str:
    """`TrainingArguments` in Python."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in form.arguments(schedule).items())
    ours = "import hf_sched  # registers the schedule\n" if schedule.is_ours else ""
    return f"{ours}from transformers import TrainingArguments\n\nargs = TrainingArguments(\n{arguments})"


def as_phases(schedule: NamedSchedule, plan: Plan) -> str | None:
    """The schedule in the phase language, warmup included; None for transformers' own schedules."""
    if not schedule.is_ours:
        return None
    if isinstance(text := schedule.arguments.get("phases"), str) and set(schedule.arguments) == {"phases"}:
        if schedule.has_own_warmup or not plan.num_warmup_steps:
            return text
    spec = registry.entry(schedule.name).spec(
        plan.num_training_steps, plan.num_warmup_steps, dict(schedule.arguments), plan.steps_per_epoch
    )
    text = " | ".join(map(str, spec.phases))
    if spec.min_lr is not None:
        text += f"; min_lr {spec.min_lr!r}"
    elif spec.floor_ratio:
        text += f"; floor {spec.floor_ratio!r}"
    return re.sub(r"(\d)\.0(?=%|ep)", r"\1", text)


def _flag(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
