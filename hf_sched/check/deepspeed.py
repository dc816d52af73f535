"""DeepSpeed configurations that contradict the training arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hf_sched.check.context import Subject
from hf_sched.check.renamed import as_yaml
from hf_sched.plan.processes import find_file

# What the Trainer compares before the first step, and rejects if it differs (`HfTrainerDeepSpeedConfig`).
_COMPARED = {
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "fp16.enabled": "fp16",
    "bf16.enabled": "bf16",
}


def check_deepspeed(subject: Subject, launch: Mapping[str, Any] | None, launch_name: str | None) -> None:
    """Check the file or mapping of `deepspeed`, and the one of the Accelerate configuration `launch`."""
    given = subject.given.get("deepspeed")
    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = _parse(given)
    if isinstance(given, str):
        _check_file(subject, given, "deepspeed")
    elif given:
        _check(subject, given, "deepspeed", "`deepspeed`")
    inner = launch.get("deepspeed_config") if launch else None
    if isinstance(inner, Mapping):
        launch_name = launch_name or str(subject.given.get("accelerate_config"))
        file = inner.get("deepspeed_config_file")
        if isinstance(file, str):
            _check_file(subject, file, f"deepspeed_config_file of {launch_name}")
        else:
            _check(subject, inner, "", launch_name)


def _check_file(subject: Subject, name: str, key: str) -> None:
    path = find_file(name, subject.config.source)
    if path is None:
        subject.not_judged.append(f"the DeepSpeed configuration {name} ({key}): there is no such file here")
    else:
        _check(subject, _parse(path.read_text(encoding="utf-8")), key, name)


def _check(subject: Subject, found: Any, key: str, place: str) -> None:
    if not isinstance(found, Mapping):
        subject.error(key, f"must be a mapping, or a JSON file with a mapping, received {place}")
        return
    if "scheduler" in found:
        name, ours = _look_up(found, "scheduler.type"), subject.text("lr_scheduler_type")
        message = f"{place} has its own `scheduler` ({name}), which silently overrides lr_scheduler_type: {ours}"
        subject.error(key, f"{message}: delete that block")
    remedy = 'write "auto" there' if key else "leave it out there, or write the same value"
    for path, argument in _COMPARED.items():
        theirs = _look_up(found, path)
        own = subject.flag(argument) if isinstance(theirs, bool) else subject.number(argument)
        is_default = subject.config.get(argument) is None  # the trainer decides, bf16 for example by the device
        if isinstance(theirs, (int, float)) and theirs != own and not is_default:
            values = f"{path} to {as_yaml(theirs)}, but `{argument}` is {as_yaml(subject.config.get(argument))}"
            subject.error(key or argument, f"{place} sets {values}: {remedy}")


def _look_up(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
