"""Which checkpoint a run goes on from: the last whole one, or one that a cooldown branches off."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import SchedulerType

import hf_sched


@dataclass
class BranchArguments:
    """A cooldown of its own from a checkpoint of a run at a constant rate (`wsd`, or a constant schedule)."""

    anneal_from: str | None = field(
        default=None, metadata={"help": "Checkpoint of another run to cool down from, in an `output_dir` of its own."}
    )
    anneal_duration: str = field(
        default="20%", metadata={"help": "Of the cooldown: steps, or a share of the run that it ends."}
    )
    anneal_shape: str = field(default="1-sqrt", metadata={"help": "How the learning rate falls."})


def checkpoint_to_resume(training_args: Any, branch: BranchArguments) -> str | None:
    """The checkpoint to go on from: a path, the last whole one (`true`), that one if there is any (`auto`), or None.

    With `anneal_from` it is that one unless the cooldown has checkpoints of its own to resume, and the schedule in
    `training_args` becomes the cooldown's.

    Raises:
        ValueError: There is none to go on from, or not the same one on all nodes.
    """
    own = _same_everywhere(training_args)
    if branch.anneal_from is None:
        return own
    _cool_down(training_args, branch)
    return own or branch.anneal_from


def missing_part(checkpoint: Path, processes: int = 1) -> str | None:
    """What is missing of a checkpoint that `processes` wrote, or cut off; None if it is whole.

    The Trainer writes its state last, but another process may still be writing its random numbers.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "trainer_state.json"
    # Weights in one file or several, of an adapter, sharded (FSDP), or with the optimizer's (DeepSpeed).
    if not any(
        any(checkpoint.glob(form))
        for form in ("*model*.safetensors", "*model*.bin", "pytorch_model_fsdp*", "global_step*")
    ):
        return "model.safetensors"
    states = sorted(checkpoint.glob("rng_state*.pth"))
    if len(states) < processes:
        return "rng_state.pth" if processes == 1 else f"rng_state_{len(states)}.pth"
    # Files of torch are zip files, whose directory is written last.
    for path in (checkpoint / "scheduler.pt", *states):
        if not zipfile.is_zipfile(path):
            return path.name
    return None


def _same_everywhere(training_args: Any) -> str | None:
    """What is requested, if every process finds the same: nodes that share no disk may differ."""
    found, error = None, None
    try:
        found = _asked_for(training_args)
    except ValueError as raised:
        error = raised
    if dist.is_available() and dist.is_initialized():
        names: list[str] = [""] * dist.get_world_size()
        dist.all_gather_object(names, Path(found).name if found else "none")
        if len(set(names)) > 1:
            ranks = {name: [rank for rank, other in enumerate(names) if other == name] for name in dict.fromkeys(names)}
            raise ValueError(
                f"`resume_from_checkpoint` is {training_args.resume_from_checkpoint!r}, but the processes find "
                f"different checkpoints: {', '.join(f'{name} (ranks {ranks[name]})' for name in ranks)}. "
                f"`output_dir` ({training_args.output_dir!r}) must be on a disk that all nodes share; or copy one "
                "checkpoint to every node, and name its folder as `resume_from_checkpoint`"
            )
    if error is not None:
        raise error
    return found


def _asked_for(training_args: Any) -> str | None:
    wanted = training_args.resume_from_checkpoint
    if wanted in (None, False, "", "false", "False"):
        return None
    if wanted not in (True, "true", "True", "auto"):
        if not Path(wanted).is_dir():
            raise ValueError(
                f"`resume_from_checkpoint` must be true, auto or a checkpoint's folder, received {wanted!r}"
            )
        return str(wanted)
    last = last_whole(training_args.output_dir)
    if last is None and wanted != "auto":
        raise ValueError(
            f"`resume_from_checkpoint` is {wanted!r}, but there is no whole checkpoint in "
            f"{training_args.output_dir!r}: leave it out to start, or write `auto` "
            "to resume only if there is one"
        )
    return last


def last_whole(output_dir: str | Path, up_to: float = inf) -> str | None:
    """The last checkpoint of a run that is whole, of those up to a step; None if there is none."""
    found = (path for path in Path(output_dir).glob("checkpoint-*") if _NAME.match(path.name))
    numbered = {step: path for path in found if (step := int(path.name.split("-")[1])) <= up_to}
    # The run may go on with another number of processes than wrote them, so they say it themselves.
    processes = max([1, *(len(list(path.glob("rng_state*.pth"))) for path in numbered.values())])
    for _, checkpoint in sorted(numbered.items(), reverse=True):
        missing = missing_part(checkpoint, processes)
        if missing is None:
            return str(checkpoint)
        warnings.warn(
            f"{checkpoint} is not whole ({missing} is missing or cut off: the run was stopped while it wrote it), so "
            "the one before it is used",
            UserWarning,
            stacklevel=2,
        )
    return None


_NAME = re.compile(r"checkpoint-\d+$")


def _cool_down(training_args: Any, branch: BranchArguments) -> None:
    assert branch.anneal_from is not None
    if Path(training_args.output_dir).resolve() in Path(branch.anneal_from).resolve().parents:
        raise ValueError(
            f"`output_dir` must be another one than that of `anneal_from` ({branch.anneal_from!r}), received "
            f"{training_args.output_dir!r}: the run that is branched off stays as it is"
        )
    kwargs = dict(training_args.lr_scheduler_kwargs or {})
    floors = {name: kwargs[name] for name in ("floor_ratio", "min_lr") if kwargs.get(name) is not None}
    cooldown = hf_sched.anneal_from(branch.anneal_from, branch.anneal_duration, branch.anneal_shape, **floors)
    del cooldown["resume_from_checkpoint"]
    for name, value in cooldown.items():
        setattr(training_args, name, value)
    training_args.lr_scheduler_type = SchedulerType(cooldown["lr_scheduler_type"])
