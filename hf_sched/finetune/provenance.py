"""Records where a run comes from in `run.json`: arguments, command, versions, git commit and devices.

The file holds the run's id and one entry per start or resume. Secrets are hidden, by the names of arguments and by
their form.
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
from uuid import uuid4

import torch
from accelerate.utils import broadcast_object_list

import hf_sched
from hf_sched._run_files import RUN, read_json, read_trainer_state, training_continues, write_text
from hf_sched.finetune.checkpoints.identity import RunIdentity, is_own

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "deepspeed", "vllm")
HIDDEN = "(hidden)"
_SHORTEST = 8  # a variable such as HF_TOKEN=1 is not a secret, and its value is everywhere

_SECRET_NAME = (
    r"(?i:token|[\w-]*((hub|hf|auth|access|api|bearer|session)[_-]?token|(api|access|secret|private)[_-]?key|secret"
    r"|password|credential)s?)"
)
# In words that are joined by \0: the value of a flag, of a variable, and of a key in JSON.
_SECRET_VALUES = (
    re.compile(rf"((?<=\0)--?{_SECRET_NAME}[=\0])(?!-)[^\0]*"),
    re.compile(rf"((?<![\w-]){_SECRET_NAME}=)[^\0\s]+"),
    re.compile(rf"""(["']{_SECRET_NAME}["']\s*:\s*["'])[^"'\0]+"""),
)
# Each service has its own alphabet and length. Names such as hf_sched_sweep or sk-learn-forest do not have them.
_TOKENS = (
    r"(hf|api_org)_[A-Za-z0-9]{30,}",  # Hugging Face
    r"hf_(oauth|jwt)_+[\w.-]{20,}",
    r"gh[oprsu]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{20,}",
    r"glpat-[\w-]{20,}",  # GitLab
    r"sk-[a-z]+-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{40,}",  # OpenAI and others
    r"sk-([a-z0-9]+-){0,3}[A-Za-z0-9]{20,}",
    r"wandb_v\d_\w{40,}",  # Weights & Biases, since 2026
    r"(AKIA|ASIA)[A-Z0-9]{16}",  # Amazon
    r"AIza[\w-]{35}",  # Google
    r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}(\.[\w-]*)?",  # JSON web token
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(_TOKENS)})(?![A-Za-z0-9])|(?<=://)[^/@\s\0]+(?=@)")
# Older keys of Weights & Biases look like commits, which are kept where they are named so or part of a path.
_COMMIT_NAME = r"(?i:[\w-]*(revision|commit|sha))"
_HEX_KEY = re.compile(rf"""({_COMMIT_NAME}["']?[=:\0\s]\s*["']?)?(?<![\w@/])[0-9a-f]{{40}}(?!\w)""")


def write_provenance(trainer: Any, checkpoint: str | None, given: Mapping[str, Any]) -> RunIdentity:
    """Write the entry of a training that is about to start; return the identity for its checkpoints."""
    path = Path(trainer.args.output_dir) / RUN
    sessions, step = [], 0
    if checkpoint:
        step = read_trainer_state(Path(checkpoint) / "trainer_state.json")["global_step"]
        if is_own(Path(checkpoint), before := read_provenance(path)):
            # Sessions that started after this checkpoint are no longer part of the run.
            sessions = [session for session in before if session["step"] < step]
    [session_id] = broadcast_object_list([uuid4().hex])
    [run_id] = broadcast_object_list([sessions[0].get("id", session_id) if sessions else session_id])
    if trainer.is_world_process_zero():
        sessions.append(_entry(trainer, session_id, step, checkpoint, given))
        with training_continues(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"run_id": run_id, "sessions": sessions}, indent=2, default=str) + "\n")
    return RunIdentity(run_id, session_id, trainer.args.world_size)


def _entry(
    trainer: Any, session_id: str, step: int, checkpoint: str | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    accelerator = trainer.accelerator
    installed = [one for one in distributions() if one.name in PACKAGES]
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    devices = devices or [f"{accelerator.device.type} ({platform.machine()}, {os.cpu_count()} cores)"]
    return {
        "id": session_id,
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


def read_provenance(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a `run.json`; an empty list if it is missing or another program's file."""
    try:
        sessions = read_json(path)["sessions"]
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
    if not isinstance(value, str) or re.fullmatch(_COMMIT_NAME, name):
        return value
    return _hide_in_text(value)


def hide_in_command(words: Sequence[str]) -> str:
    """Return a command without secrets, whether written `--hub_token VALUE` or `--hub_token=VALUE`."""
    return shlex.join(_hide_in_text("\0".join(words)).split("\0"))


def _hide_in_text(text: str) -> str:
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and re.fullmatch(_SECRET_NAME, name):
            text = text.replace(value, HIDDEN)
    for pattern in _SECRET_VALUES:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    text = _TOKEN.sub(HIDDEN, text)
    return _HEX_KEY.sub(lambda found: found[0] if found[1] else HIDDEN, text)
