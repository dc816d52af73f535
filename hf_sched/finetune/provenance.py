"""Where a run comes from: arguments, command, versions, git commit and devices, in `run.json` of its folder.

A resume adds an entry to those that are there. Tokens are left out, by their names and by their form.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

import hf_sched

RUN_FILE = "run.json"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "deepspeed", "vllm")
HIDDEN = "(hidden)"

_SECRET_NAMES = re.compile(
    r"(?i)(^token|(hub|hf|auth|access|api|bearer)_?token|api_?key|secret|password|credential)s?$"
)
# Of the hub, GitHub, OpenAI and its like, and what is before the @ of an address.
_SECRET_FORMS = re.compile(r"\b(hf|gh[opsu]|github_pat|sk)[_-]\w[\w-]{15,}|(?<=://)[^/@\s]+(?=@)")
_SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "WANDB_API_KEY")


def write_provenance(trainer: Any, checkpoint: str | None) -> None:
    """Write down what a training is about to begin with, on the main process."""
    if not trainer.is_world_process_zero():
        return
    path = Path(trainer.args.output_dir) / RUN_FILE
    sessions = read_provenance(path) if checkpoint else []
    step = _step_of(Path(checkpoint)) if checkpoint else 0
    # What comes behind the step gone on from did not happen, as in the other records.
    sessions = [session for session in sessions if session["step"] < step]
    sessions.append({"step": step, "checkpoint": checkpoint, **provenance(trainer)})
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps({"sessions": sessions}, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(whole, path)  # a kill meanwhile leaves the old file


def read_provenance(path: Path) -> list[dict[str, Any]]:
    """The entries of a `run.json`; none where there is no such file, or another program's of that name."""
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [one for one in sessions if isinstance(one, dict) and isinstance(one.get("step"), int)]


def provenance(trainer: Any) -> dict[str, Any]:
    """What a training begins with."""
    accelerator = trainer.accelerator
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(hide_in_words(sys.orig_argv)),
        "arguments": hide(given_arguments(sys.argv[1:])),
        "processes": accelerator.num_processes,
        "distributed_type": getattr(accelerator.distributed_type, "value", str(accelerator.distributed_type)),
        "devices": _devices(accelerator.device),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "git": git_commit(),
    }


def given_arguments(words: Sequence[str]) -> dict[str, Any]:
    """What a recipe was given: its YAML file's keys, and the flags behind it, which win."""
    flags: dict[str, list[str]] = {}
    name = None
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags[name] = [value] if equals else []
        elif name is not None:
            flags[name].append(word)
    given: dict[str, Any] = {}
    config = " ".join(flags.get("config", []))
    if config and Path(config).is_file():
        given |= yaml.safe_load(Path(config).read_text(encoding="utf-8")) or {}
    return given | {key: _value(values) for key, values in flags.items()}


def git_commit() -> dict[str, Any] | None:
    """The commit of the working directory, and whether anything tracked was changed; None outside a checkout."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": None if changed is None else bool(changed)}


def hide(value: Any, name: str = "") -> Any:
    """A value without what opens doors: not what has a secret's name, nor what looks like one."""
    if value is not None and _SECRET_NAMES.search(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: hide(one, str(key)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide(one) for one in value]
    return _hide_in_text(value) if isinstance(value, str) else value


def hide_in_words(words: Sequence[str]) -> list[str]:
    """The same for a command: of `--hub_token VALUE` and `--hub_token=VALUE`, too."""
    hidden = []
    secret = False
    for word in words:
        name, equals, _ = word.partition("=")
        is_flag = word.startswith("-")
        if is_flag and equals and _is_secret(name):
            hidden.append(f"{name}={HIDDEN}")
        else:
            hidden.append(HIDDEN if secret and not is_flag else _hide_in_text(word))
        secret = is_flag and not equals and _is_secret(name)
    return hidden


def _value(words: Sequence[str]) -> Any:
    """What the words behind a flag say, as YAML would: `60` is a number, no word is true."""
    values = []
    for word in words:
        try:
            values.append(yaml.safe_load(word))
        except yaml.YAMLError:
            values.append(word)
    return (values if len(values) > 1 else values[0]) if values else True


def _is_secret(flag: str) -> bool:
    return bool(_SECRET_NAMES.search(flag.lstrip("-").replace("-", "_")))


def _hide_in_text(text: str) -> str:
    for name in _SECRET_VARIABLES:
        if len(value := os.environ.get(name, "")) > 6:
            text = text.replace(value, HIDDEN)
    return _SECRET_FORMS.sub(HIDDEN, text)


def _versions() -> dict[str, str]:
    found = {"hf_sched": hf_sched.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _devices(device: torch.device) -> list[str]:
    if device.type == "cuda":
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return [f"{device.type} ({platform.processor() or platform.machine()}, {os.cpu_count()} cores)"]


def _git(*words: str) -> str | None:
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _step_of(checkpoint: Path) -> int:
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return int(state["global_step"])
