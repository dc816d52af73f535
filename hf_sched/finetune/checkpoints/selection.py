"""Selects the checkpoint that a run resumes from: the last complete one, or one that a cooldown branches off."""

from __future__ import annotations

import logging
import re
import zipfile
from math import inf
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import SchedulerType

import hf_sched
from hf_sched._run_files import read_trainer_state
from hf_sched.finetune.arguments import PipelineArguments
from hf_sched.scheduler.resume import Saved
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-\d+$")
_WEIGHTS = ("*model*.safetensors", "*model*.bin", "pytorch_model_fsdp*", "global_step*")  # the last two when sharded


def checkpoint_to_resume(training_args: Any, arguments: PipelineArguments) -> str | None:
    """Return the checkpoint to resume from, or None to start.

    `resume_from_checkpoint` is a path, `true` (the last complete checkpoint) or `auto` (the same, if there is one).
    With `anneal_from` it is that checkpoint unless the cooldown has its own, and `training_args` get its schedule.
    A checkpoint that is missing, or not the same one on all nodes, raises a ValueError.
    """
    own = _same_on_all_processes(training_args)
    if arguments.anneal_from:
        _apply_cooldown(training_args, arguments, arguments.anneal_from)
    return own or arguments.anneal_from


def missing_part(checkpoint: Path, processes: int = 1) -> str | None:
    """Return the file that is missing or cut off in a checkpoint that `processes` wrote; None if it is complete.

    The Trainer writes its state last, but another process may still be writing its random number states.
    """
    try:
        read_trainer_state(checkpoint / "trainer_state.json")
    except (OSError, ValueError):
        return "trainer_state.json"
    if not any(any(checkpoint.glob(form)) for form in _WEIGHTS):
        return "model.safetensors"
    states = sorted(checkpoint.glob("rng_state*.pth"))
    if len(states) < processes:
        return "rng_state.pth" if processes == 1 else f"rng_state_{len(states)}.pth"
    return next((path.name for path in (checkpoint / "scheduler.pt", *states) if not _is_whole(path)), None)


def _is_whole(path: Path) -> bool:
    """Whether a file that torch saved, a zip archive with checksums, is there and undamaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def last_complete(output_dir: str | Path, up_to: float = inf) -> str | None:
    """Return the last complete checkpoint of a run up to a step; None if no checkpoint is complete."""
    found = (path for path in Path(output_dir).glob("checkpoint-*") if _NAME.match(path.name))
    numbered = {step: path for path in found if (step := int(path.name.split("-")[1])) <= up_to}
    # The run may resume on another number of processes than wrote the checkpoints, so count the files.
    processes = max([1, *(len(list(path.glob("rng_state*.pth"))) for path in numbered.values())])
    for _, checkpoint in sorted(numbered.items(), reverse=True):
        missing = missing_part(checkpoint, processes)
        if missing is None:
            return str(checkpoint)
        logger.warning(f"{checkpoint} is incomplete ({missing} is missing or cut off); using the one before")
    return None


def _same_on_all_processes(training_args: Any) -> str | None:
    """Return the requested checkpoint if every process finds the same: nodes without a shared disk may differ."""
    found, error = None, None
    try:
        found = _requested(training_args)
    except ValueError as raised:  # before it is raised, all processes must compare
        error = raised
    names = [Path(found).name if found else "none"] * training_args.world_size
    if dist.is_available() and dist.is_initialized():
        dist.all_gather_object(names, names[0])
    ranks = {name: [rank for rank, other in enumerate(names) if other == name] for name in names}
    if len(ranks) > 1:
        raise ValueError(
            f"`resume_from_checkpoint` is {training_args.resume_from_checkpoint!r}, but the processes find "
            f"different checkpoints: {', '.join(f'{name} (ranks {ranks[name]})' for name in ranks)}. "
            f"`output_dir` ({training_args.output_dir!r}) must be on a disk that all nodes share; or copy one "
            "checkpoint to every node and set `resume_from_checkpoint` to its folder"
        )
    if error is not None:
        raise error
    return found


def _requested(training_args: Any) -> str | None:
    wanted = training_args.resume_from_checkpoint
    if wanted in (None, False, "", "false", "False"):
        return None
    if wanted not in (True, "true", "True", "auto"):
        if not Path(wanted).is_dir():
            raise ArgumentError("resume_from_checkpoint", "true, auto or a checkpoint's folder", wanted)
        read_trainer_state(Path(wanted) / "trainer_state.json")
        if Path(wanted, "scheduler.pt").is_file():
            Saved.load(Path(wanted))
        return str(wanted)
    last = last_complete(training_args.output_dir)
    if last is None and wanted != "auto":
        raise ValueError(
            f"`resume_from_checkpoint` is {wanted!r}, but there is no complete checkpoint in "
            f"{training_args.output_dir!r}: omit it to start, or use `auto` to resume only if there is one"
        )
    return last


def _apply_cooldown(training_args: Any, arguments: PipelineArguments, checkpoint: str) -> None:
    if Path(training_args.output_dir).resolve() in Path(checkpoint).resolve().parents:
        allowed = f"another folder than that of `anneal_from` ({checkpoint!r})"
        raise ArgumentError("output_dir", allowed, training_args.output_dir, "the original run stays unchanged")
    kwargs = dict(training_args.lr_scheduler_kwargs or {})
    floors = {name: kwargs[name] for name in ("floor_ratio", "min_lr") if kwargs.get(name) is not None}
    cooldown = hf_sched.anneal_from(checkpoint, arguments.anneal_duration, arguments.anneal_shape, **floors)
    del cooldown["resume_from_checkpoint"]
    for name, value in cooldown.items():
        setattr(training_args, name, value)
    training_args.lr_scheduler_type = SchedulerType(cooldown["lr_scheduler_type"])
