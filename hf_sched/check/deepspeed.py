"""DeepSpeed configurations that set what the training arguments set, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject, as_number

# What the Trainer compares before the first step, and refuses where it differs (`HfTrainerDeepSpeedConfig`).
_SAME = {
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
}


def check_deepspeed(subject: Subject, launch_config: str | None) -> Iterator[Finding]:
    """The file or mapping of `deepspeed`, or the one that the Accelerate configuration of the launch line names."""
    given = subject.given.get("deepspeed")
    if isinstance(given, Mapping):
        yield from _check(subject, given, "deepspeed", "`deepspeed`")
    elif isinstance(given, str) and given.lstrip().startswith("{"):
        yield from _check(subject, _read_text(given), "deepspeed", "`deepspeed`")
    elif isinstance(given, str) and given:
        yield from _check_file(subject, given, "deepspeed")
    if launch_config is not None:
        named = _named_by_accelerate(find_file(launch_config, subject))
        if named is not None:
            yield from _check_file(subject, named, f"deepspeed_config_file of {launch_config}")


def find_file(name: str, subject: Subject) -> Path | None:
    """A file seen from here, or from a folder that the configuration lies in."""
    for folder in (Path(), *Path(subject.config.source).resolve().parents):
        if (folder / name).is_file():
            return folder / name
    return None


def _check_file(subject: Subject, name: str, key: str) -> Iterator[Finding]:
    path = find_file(name, subject)
    if path is None:
        subject.not_judged.append(f"the DeepSpeed configuration {name} ({key}): there is no such file here")
        return
    found = _read_text(path.read_text(encoding="utf-8"))
    if not isinstance(found, Mapping):
        yield subject.error(key, f"must be a JSON file with a mapping, received {name}")
        return
    yield from _check(subject, found, key, name)


def _check(subject: Subject, found: Any, key: str, place: str) -> Iterator[Finding]:
    if not isinstance(found, Mapping):
        yield subject.error(key, "must be a mapping, or a JSON file with one")
        return
    if "scheduler" in found:
        name = found["scheduler"].get("type") if isinstance(found["scheduler"], Mapping) else found["scheduler"]
        wins_over = subject.text("lr_scheduler_type")
        yield subject.error(
            key,
            f"{place} has a `scheduler` of its own ({name}), which wins silently over "
            f"lr_scheduler_type: {wins_over}: delete that block",
        )
    for path, argument in _SAME.items():
        theirs, ours = as_number(_look_up(found, path)), subject.number(argument)
        if theirs is not None and ours is not None and theirs != ours:
            yield subject.error(
                key, f'{place} sets {path} to {theirs:g}, but `{argument}` is {ours:g}: write "auto" there'
            )
    for half in ("fp16", "bf16"):
        theirs = _look_up(found, f"{half}.enabled")
        ours_on = subject.value(half) is True or (
            half == "bf16"
            and subject.value(half) is None
            and subject.value("fp16") is not True
            and subject.kind != "trainer"
        )
        if isinstance(theirs, bool) and theirs != ours_on and subject.value(f"{half}_full_eval") is not True:
            yield subject.error(
                key,
                f"{place} sets {half}.enabled to {str(theirs).lower()}, but `{half}` is {str(ours_on).lower()}: "
                'write "auto" there',
            )


def _named_by_accelerate(path: Path | None) -> str | None:
    launch = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
    inner = launch.get("deepspeed_config") if isinstance(launch, Mapping) else None
    named = inner.get("deepspeed_config_file") if isinstance(inner, Mapping) else None
    return named if isinstance(named, str) else None


def _look_up(found: Any, path: str) -> Any:
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _read_text(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
