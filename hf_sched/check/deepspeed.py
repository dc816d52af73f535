"""The Accelerate configuration, and DeepSpeed configurations that contradict the training arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from hf_sched.check.finding import Finding, as_yaml
from hf_sched.check.subject import Subject
from hf_sched.plan.processes import find_file, find_world_size, read_accelerate_config
from hf_sched.plan.run_length import Batching
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
    given = _read(subject, subject.get("deepspeed"), "deepspeed", "`deepspeed`")
    if isinstance(given, Finding):
        yield given
    elif given:
        yield from _check_text(subject, given, "deepspeed", "`deepspeed`")
        yield from _check_values(subject, given, "deepspeed", "`deepspeed`", subject.get("gradient_accumulation_steps"))
    inner = (subject.launch or {}).get("deepspeed_config")
    if not isinstance(inner, Mapping):
        return
    name = subject.accelerate_config or str(subject.config.given.get("accelerate_config"))
    file = inner.get("deepspeed_config_file")
    key = f"deepspeed_config_file of {name}" if file else ""
    found = _read(subject, file or inner, key, name)
    if isinstance(found, Finding):
        yield found
    elif found:
        if file:
            yield from _check_text(subject, found, key, str(file))
            found = {"gradient_accumulation_steps": 1, **found}  # the default of Accelerate
        try:
            accumulation = Batching.read(subject.usable, subject.num_processes or 1).accumulation
        except ArgumentError:  # reported by another check
            return
        yield from _check_values(subject, found, key, str(file or name), accumulation)


def _read(subject: Subject, found: Any, key: str, place: str) -> Mapping[str, Any] | Finding | None:
    """Read a mapping, a mapping in JSON, or the name of a file; None if it is not given."""
    if isinstance(found, str) and found and not found.lstrip().startswith("{"):
        place, path = found, find_file(found, subject.config.source)
        if path is None:
            subject.not_judged.append(f"the DeepSpeed configuration {place} ({key}): there is no such file here")
            return None
        found = path.read_text(encoding="utf-8", errors="replace")
    if isinstance(found, str) and found:
        with suppress(json.JSONDecodeError):
            found = json.loads(found)
    if found and not isinstance(found, Mapping):
        return subject.error(key, f"must be a mapping, or a JSON file with a mapping, received {place}")
    return found or None


def _check_text(subject: Subject, found: Mapping[Any, Any], key: str, place: str, path: str = "") -> Iterator[Finding]:
    """Find numbers and truth values that are written as text, which neither the Trainer nor DeepSpeed converts."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _check_text(subject, value, key, place, f"{path}{name}.")
        for item in value if isinstance(value, list) else [value]:
            meant = _from_text(item)
            if meant is not item:
                rule = f"{place} has the text {item!r} as {path}{name}, where DeepSpeed requires a value"
                yield subject.error(key, f"{rule}: write {as_yaml(meant)} without quotes")


def _from_text(value: Any) -> Any:
    """The number or truth value that is written as text; any other value unchanged."""
    if isinstance(value, str):
        if value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        for convert in (int, float):
            with suppress(ValueError):
                return convert(value)
    return value


def _check_values(
    subject: Subject, found: Mapping[str, Any], key: str, place: str, accumulation: int
) -> Iterator[Finding]:
    """Find a scheduler, and values that differ from the training arguments."""
    if "scheduler" in found:
        name, ours = _look_up(found, "scheduler.type"), subject.get("lr_scheduler_type")
        rule = f"{place} has its own `scheduler` ({name}), which silently overrides lr_scheduler_type: {ours}"
        yield subject.error(key, f"{rule}: delete that block")
    remedy = 'write "auto" there' if key else "leave it out there, or write the same value"
    get, processes, batch = subject.get, subject.num_processes, subject.get("per_device_train_batch_size")
    own = {path: (name, f"`{name}` is", get(name)) for path, name in _COMPARED.items()}
    name = "gradient_accumulation_steps"
    own[name] = (name, f"`{name}` is", accumulation)
    betas = [get("adam_beta1"), get("adam_beta2")]
    own["optimizer.params.betas"] = ("adam_beta1", "`adam_beta1` and `adam_beta2` are", betas)
    if processes:
        product = f"`per_device_train_batch_size` {batch} x processes {processes} x accumulation {accumulation} is"
        own["train_batch_size"] = ("per_device_train_batch_size", product, batch * processes * accumulation)
    for path, (argument, phrase, value) in own.items():
        theirs = _look_up(found, path)
        theirs = [*map(_from_text, theirs)] if isinstance(theirs, list) else _from_text(theirs)
        # Without a value the trainer decides, about bf16 for example by the device.
        if isinstance(theirs, (int, float, list)) and theirs != value and value is not None:
            differs = f"{place} sets {path} to {as_yaml(theirs)}, but {phrase} {as_yaml(value)}"
            yield subject.error(key or argument, f"{differs}: {remedy}")


def _look_up(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
