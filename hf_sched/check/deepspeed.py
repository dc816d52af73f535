"""The Accelerate configuration, and DeepSpeed configurations that contradict the training arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from hf_sched.check.finding import Finding, as_yaml
from hf_sched.check.subject import Subject
from hf_sched.plan.processes import find_file, find_world_size, read_accelerate_config
from hf_sched.schedules.validation import ArgumentError

# What the Trainer compares before the first step, and rejects if it differs (`HfTrainerDeepSpeedConfig`).
_COMPARED = {
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "fp16.enabled": "fp16",
    "bf16.enabled": "bf16",
}


def check_launch(subject: Subject) -> Iterator[Finding]:
    """Read the Accelerate configuration and the number of processes, for the other checks."""
    requested, subject.num_processes = subject.num_processes, None
    try:
        subject.launch = read_accelerate_config(subject.config, subject.accelerate_config)
        subject.world_size = find_world_size(subject.config, requested, subject.accelerate_config)
    except ArgumentError as error:
        yield subject.rejected(error)
    else:
        subject.num_processes = None if subject.world_size.assumed else subject.world_size.processes


def check_deepspeed(subject: Subject) -> Iterator[Finding]:
    """Check the file or mapping of `deepspeed`, and the one of the Accelerate configuration."""
    yield from _check(subject, subject.get("deepspeed"), "deepspeed", "`deepspeed`")
    inner = (subject.launch or {}).get("deepspeed_config")
    if isinstance(inner, Mapping):
        name = subject.accelerate_config or str(subject.config.given.get("accelerate_config"))
        file = inner.get("deepspeed_config_file")
        yield from _check(subject, file or inner, f"deepspeed_config_file of {name}" if file else "", name)


def _check(subject: Subject, found: Any, key: str, place: str) -> Iterator[Finding]:
    """Check a configuration: a mapping, a mapping in JSON, or the name of a file."""
    if not found:
        return
    if isinstance(found, str) and not found.lstrip().startswith("{"):
        place, path = found, find_file(found, subject.config.source)
        if path is None:
            subject.not_judged.append(f"the DeepSpeed configuration {place} ({key}): there is no such file here")
            return
        found = path.read_text(encoding="utf-8")
    if isinstance(found, str):
        with suppress(json.JSONDecodeError):
            found = json.loads(found)
    if not isinstance(found, Mapping):
        yield subject.error(key, f"must be a mapping, or a JSON file with a mapping, received {place}")
        return
    if "scheduler" in found:
        name, ours = _look_up(found, "scheduler.type"), subject.get("lr_scheduler_type")
        rule = f"{place} has its own `scheduler` ({name}), which silently overrides lr_scheduler_type: {ours}"
        yield subject.error(key, f"{rule}: delete that block")
    remedy = 'write "auto" there' if key else "leave it out there, or write the same value"
    for path_inside, argument in _COMPARED.items():
        theirs, own = _look_up(found, path_inside), subject.get(argument)
        # Without a value the trainer decides, about bf16 for example by the device.
        if isinstance(theirs, (int, float)) and theirs != own and own is not None:
            values = f"{path_inside} to {as_yaml(theirs)}, but `{argument}` is {as_yaml(own)}"
            yield subject.error(key or argument, f"{place} sets {values}: {remedy}")


def _look_up(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
