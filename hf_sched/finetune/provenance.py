"""Records where a run comes from in `run.json`: arguments, command, versions, git commit and devices.

The file holds one entry per start or resume. Secrets are hidden, by the names of arguments and by their form.
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
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

import hf_sched
from hf_sched._run_files import RUN, write_text

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "deepspeed", "vllm")
HIDDEN = "(hidden)"

_SECRET_NAME = r"(?i:token|[\w-]*((hub|hf|auth|access|api|bearer)[_-]?token|api[_-]?key|secret|password|credential)s?)"
_SECRET_FLAG = re.compile(rf"(?<=\0)(--?{_SECRET_NAME}[=\0])(?!-)[^\0]*")  # in words that are joined by \0
# Tokens of the hub, GitHub and OpenAI, and what precedes the @ in a URL.
_SECRET_FORMS = re.compile(r"\b(hf|gh[opsu]|github_pat|sk)[_-]\w[\w-]{15,}|(?<=://)[^/@\s\0]+(?=@)")


def write_provenance(trainer: Any, checkpoint: str | None, given: Mapping[str, Any]) -> None:
    """Write the entry of a training that is about to start, on the main process only."""
    if not trainer.is_world_process_zero():
        return
    path = Path(trainer.args.output_dir) / RUN
    sessions, step = [], 0
    if checkpoint:
        step = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        # Sessions that started after this checkpoint are no longer part of the run.
        sessions = [session for session in read_provenance(path) if session["step"] < step]
    accelerator = trainer.accelerator
    installed = [one for one in distributions() if one.name in PACKAGES]
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    devices = devices or [f"{accelerator.device.type} ({platform.machine()}, {os.cpu_count()} cores)"]
    entry = {
        "step": step,
        "checkpoint": checkpoint,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": hide_in_command(sys.orig_argv),
        "arguments": hide(given),
        "processes": accelerator.num_processes,
        "distributed_type": accelerator.distributed_type.value,
        "devices": devices,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"hf_sched": hf_sched.__version__, **{one.name: one.version for one in installed}},
        "git": git_commit(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"sessions": [*sessions, entry]}, indent=2, default=str) + "\n")


def read_provenance(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a `run.json`; an empty list if it is missing or another program's file."""
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [session for session in sessions if isinstance(session, dict) and isinstance(session.get("step"), int)]


def git_commit() -> dict[str, Any] | None:
    """Return the commit of the working directory and whether tracked files differ; None outside a checkout."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    commit, dirty, _ = done.stdout.strip().partition("-dirty")
    return {"commit": commit, "dirty": bool(dirty)}


def hide(value: Any, name: str = "") -> Any:
    """Return a value without secrets: those with a secret's name, and texts that look like one."""
    if value is not None and re.fullmatch(_SECRET_NAME, name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: hide(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide(item) for item in value]
    return _hide_in_text(value) if isinstance(value, str) else value


def hide_in_command(words: Sequence[str]) -> str:
    """Return a command without secrets, whether written `--hub_token VALUE` or `--hub_token=VALUE`."""
    hidden = _hide_in_text(_SECRET_FLAG.sub(rf"\1{HIDDEN}", "\0".join(words)))
    return shlex.join(hidden.split("\0"))


def _hide_in_text(text: str) -> str:
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        if value := os.environ.get(name):
            text = text.replace(value, HIDDEN)
    return _SECRET_FORMS.sub(HIDDEN, text)
