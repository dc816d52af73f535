"""DeepSpeed configurations that contradict the training arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.plan.launch import find_file

# What the Trainer compares before the first step, and rejects if it differs (`HfTrainerDeepSpeedConfig`).
_COMPARED = {
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
}


def check_deepspeed(subject: Subject, launch: Mapping[str, Any] | None, launch_name: str) -> Iterator[Finding]:
    """The file or mapping of `deepspeed`, and the one of the Accelerate configuration `launch`."""
    given = subject.given.get("deepspeed")
    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = _parse(given)
    if isinstance(given, str):
        yield from _check_file(subject, given, "deepspeed")
    elif given:
        yield from _check(subject, given, "deepspeed", "`deepspeed`")
    inner = launch.get("deepspeed_config") if launch else None
    if isinstance(inner, Mapping):
        named = inner.get("deepspeed_config_file")
        if isinstance(named, str):
            yield from _check_file(subject, named, f"deepspeed_config_file of {launch_name}")
        else:
            yield from _check(subject, inner, "", launch_name)


def _check_file(subject: Subject, name: str, key: str) -> Iterator[Finding]:
    path = find_file(name, subject.config.source)
    if path is None:
        subject.not_judged.append(f"the DeepSpeed configuration {name} ({key}): there is no such file here")
    else:
        yield from _check(subject, _parse(path.read_text(encoding="utf-8")), key, name)


def _check(subject: Subject, found: Any, key: str, place: str) -> Iterator[Finding]:
    if not isinstance(found, Mapping):
        yield subject.error(key, f"must be a mapping, or a JSON file with a mapping, received {place}")
        return
    if "scheduler" in found:
        name, ours = _look_up(found, "scheduler.type"), subject.text("lr_scheduler_type")
        message = f"{place} has its own `scheduler` ({name}), which silently overrides lr_scheduler_type: {ours}"
        yield subject.error(key, f"{message}: delete that block")
    for path, argument in _COMPARED.items():
        theirs, own = _look_up(found, path), subject.number(argument)
        if isinstance(theirs, (int, float)) and own is not None and theirs != own:
            remedy = 'write "auto" there' if key else "leave it out there, or write the same number"
            message = f"{place} sets {path} to {theirs:g}, but `{argument}` is {own:g}: {remedy}"
            yield subject.error(key or argument, message)
    for half in ("fp16", "bf16"):
        theirs, is_on = _look_up(found, f"{half}.enabled"), subject.value(half) is True
        if half == "bf16" and subject.value("bf16") is None:  # TRL's default
            is_on = subject.kind != "trainer" and subject.value("fp16") is not True
        if isinstance(theirs, bool) and theirs != is_on and subject.value(f"{half}_full_eval") is not True:
            message = f"{place} sets {half}.enabled to {str(theirs).lower()}, but `{half}` is {str(is_on).lower()}"
            yield subject.error(key, f'{message}: write "auto" there')


def _look_up(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
