"""Selects the checkpoint that a run resumes from: its own last complete one, or one that a cooldown branches off.

`true` and `auto` never take the checkpoint of another run, and no run starts in a folder with checkpoints.
"""

from __future__ import annotations

import logging
import re
import shutil
import zipfile
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import SchedulerType

import hf_sched
from hf_sched._run_files import RUN
from hf_sched.finetune.arguments import PipelineArguments
from hf_sched.finetune.checkpoints.differences import differences, recorded_session
from hf_sched.finetune.checkpoints.identity import RunIdentity, is_own
from hf_sched.finetune.provenance import read_provenance
from hf_sched.scheduler.resume import read_schedule
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-\d+$")
_WEIGHTS = ("*model*.safetensors", "*model*.bin", "pytorch_model_fsdp*", "global_step*")  # the last two when sharded
_MAKES_ANOTHER_RUN = ("model_name_or_path", "dataset_name", "dataset_config", "seed", "data_seed")
_RESULTS = (RUN, "trainer_state.json", "train_results.json", "all_results.json")


def checkpoint_to_resume(
    training_args: Any, arguments: PipelineArguments, given: Mapping[str, Any] | None = None
) -> str | None:
    """Return the checkpoint to resume from, or None to start.

    `resume_from_checkpoint` is a path, `true` (the run's last complete checkpoint) or `auto` (the same, if there is
    one). With `anneal_from` it is that checkpoint unless the cooldown has its own, and `training_args` get its
    schedule. `given` are the arguments as they were written.

    Raises:
        ValueError: The checkpoint is missing, belongs to another run, or is not the same one on all nodes; or the run
            would start in a folder with checkpoints, and `overwrite` is not set.
    """
    if arguments.anneal_from:
        _apply_cooldown(training_args, arguments, arguments.anneal_from)
    return _same_on_all_processes(training_args, arguments, given or {}) or arguments.anneal_from


def missing_part(checkpoint: Path) -> str | None:
    """Return the file that is missing or cut off in a checkpoint; None if it is complete.

    The Trainer writes its state last, but another process may still be writing its random number states.
    """
    try:
        processes = RunIdentity.of(checkpoint).processes or 1
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
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):  # depending on the byte that is damaged
        return False


def last_complete(output_dir: str | Path, up_to: float = inf) -> str | None:
    """Return the run's own last complete checkpoint up to a step; None if it has none."""
    sessions = read_provenance(Path(output_dir) / RUN)
    for checkpoint in checkpoints_in(output_dir):
        if _number(checkpoint) > up_to:
            continue
        if (missing := missing_part(checkpoint)) is not None:
            logger.warning(f"{checkpoint} is incomplete ({missing} is missing or cut off); using the one before")
        elif not is_own(checkpoint, sessions):
            logger.warning(f"{checkpoint} is not part of the run that {output_dir}/{RUN} describes; it is skipped")
        else:
            return str(checkpoint)
    return None


def checkpoints_in(output_dir: str | Path) -> list[Path]:
    """Return the checkpoint folders of any run, the last first."""
    return sorted((path for path in Path(output_dir).glob("checkpoint-*") if _NAME.match(path.name)), key=_number)[::-1]


def is_in(output_dir: str | Path, checkpoint: str | None) -> bool:
    """Return whether a checkpoint is one of those in `output_dir`."""
    return checkpoint is not None and Path(checkpoint).resolve().parent == Path(output_dir).resolve()


def clear_previous_run(output_dir: str | Path) -> None:
    """Delete the checkpoints and results of a previous run, for `overwrite`."""
    for checkpoint in checkpoints_in(output_dir):
        shutil.rmtree(checkpoint)
    for name in _RESULTS:
        (Path(output_dir) / name).unlink(missing_ok=True)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


def _same_on_all_processes(training_args: Any, arguments: PipelineArguments, given: Mapping[str, Any]) -> str | None:
    """Return the requested checkpoint if every process finds the same: nodes without a shared disk may differ."""
    found, error = None, None
    try:
        found = _requested(training_args, arguments, given)
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


def _requested(training_args: Any, arguments: PipelineArguments, given: Mapping[str, Any]) -> str | None:
    wanted, folder = training_args.resume_from_checkpoint, training_args.output_dir
    found = None
    if wanted in (True, "true", "True", "auto"):
        found = last_complete(folder)
        session = recorded_session(Path(found)) if found else None
        if session and (changed := differences(session, given, only=_MAKES_ANOTHER_RUN)):
            if not arguments.overwrite:
                raise _another_run(wanted, str(found), ", ".join(changed))
            found = None
        if found is None and wanted != "auto":
            raise ValueError(
                f"`resume_from_checkpoint` is {wanted!r}, but there is no complete checkpoint of this run in "
                f"{folder!r}: omit it to start, or use `auto` to resume only if there is one"
            )
    elif wanted not in (None, False, "", "false", "False"):
        if not Path(wanted).is_dir():
            raise ArgumentError("resume_from_checkpoint", "true, auto or a checkpoint's folder", wanted)
        found = str(wanted)
    if not is_in(folder, found):
        _check_start(folder, arguments, given, is_auto=wanted == "auto")
    return found


def _check_start(folder: str, arguments: PipelineArguments, given: Mapping[str, Any], *, is_auto: bool) -> None:
    """Raise an ArgumentError if a run would start in a folder with checkpoints, and may not delete them."""
    present = checkpoints_in(folder)
    if is_auto:  # a run that was killed while it wrote its first checkpoint starts again
        present = [path for path in present if missing_part(path) is None]
    if arguments.overwrite:
        model = Path(str(given.get("model_name_or_path"))).resolve()
        if model in (path.resolve() for path in present):
            rule, hint = "would delete the model of `model_name_or_path`", "give another `output_dir`"
            raise ArgumentError("overwrite", rule=rule, hint=hint)
        return
    if present:
        names = ", ".join(path.name for path in present[:3]) + (", ..." if len(present) > 3 else "")
        resume = "" if is_auto else "to continue that run, add `--resume_from_checkpoint auto`; "
        raise ArgumentError(
            "output_dir",
            rule=f"holds the checkpoints of {'another' if is_auto else 'a previous'} run ({names})",
            received=folder,
            hint=f"{resume}to delete them and start anew, `--overwrite true`; to keep them, `--output_dir NEW_FOLDER`",
        )


def _another_run(wanted: object, checkpoint: str, changed: str) -> ArgumentError:
    return ArgumentError(
        "resume_from_checkpoint",
        rule=f"would continue another run: {checkpoint} differs from this one in {changed}",
        received=wanted,
        hint=f"to continue that run in spite of it, `--resume_from_checkpoint {checkpoint}`; to delete its checkpoints "
        "and start anew, `--overwrite true --resume_from_checkpoint auto`; to keep them, `--output_dir NEW_FOLDER`",
    )


def _apply_cooldown(training_args: Any, arguments: PipelineArguments, checkpoint: str) -> None:
    if Path(training_args.output_dir).resolve() in Path(checkpoint).resolve().parents:
        allowed = f"another folder than that of `anneal_from` ({checkpoint!r})"
        raise ArgumentError("output_dir", allowed, training_args.output_dir, "the original run stays unchanged")
    _, kwargs = read_schedule(training_args)
    floors = {name: kwargs[name] for name in ("floor_ratio", "min_lr") if kwargs.get(name) is not None}
    cooldown = hf_sched.anneal_from(checkpoint, arguments.anneal_duration, arguments.anneal_shape, **floors)
    del cooldown["resume_from_checkpoint"]
    for name, value in cooldown.items():
        setattr(training_args, name, value)
    training_args.lr_scheduler_type = SchedulerType(cooldown["lr_scheduler_type"])
