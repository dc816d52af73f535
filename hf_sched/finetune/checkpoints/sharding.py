"""Checks that a checkpoint was sharded like the run that resumes it, before a model is loaded.

Without DeepSpeed the Trainer loads only the weights of a DeepSpeed checkpoint, and silently continues with a new
optimizer and scheduler. Other mismatches fail only after the model is loaded, with errors that do not name the cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sched.finetune.launch import requests_fsdp

_LAUNCH = {"ZeRO-2": "zero2.yaml", "ZeRO-3": "zero3.yaml", "FSDP": "fsdp2.yaml", None: "ddp.yaml"}
_STAGE_0 = "DeepSpeed without ZeRO"


@dataclass(frozen=True)
class Sharding:
    """How an optimizer's state is distributed."""

    kind: str | None  # ZeRO-2 (or ZeRO-1), ZeRO-3, DeepSpeed without ZeRO, FSDP; None if each process holds all of it
    parts: int | None = None  # the number of processes that can read it; None for any number

    def __str__(self) -> str:
        processes = f" on {self.parts} process{'es' if self.parts != 1 else ''}" if self.parts else ""
        return f"{self.kind or 'one process or DDP'}{processes}"


def check_sharding(training_args: Any, checkpoint: str | None) -> None:
    """Raise a ValueError if this run cannot resume a checkpoint because it was sharded in another way."""
    config = getattr(training_args.deepspeed_plugin, "deepspeed_config", None) or {}
    if checkpoint is None or (config.get("checkpoint") or {}).get("load_universal"):
        return
    written, wanted = sharding_of_checkpoint(Path(checkpoint)), _sharding_of_run(training_args)
    if written == wanted:
        return
    launch = f"accelerate_configs/{_LAUNCH[written.kind]}" if written.kind in _LAUNCH else "FILE"
    launch += f" --num_processes {written.parts}" if written.parts else ""
    raise ValueError(
        f"{checkpoint} was written under {written} and cannot be resumed under {wanted}: launch the run as before "
        f"(`--config_file {launch}`), or start a new run with a new optimizer from its weights "
        f"(`{weights_of(checkpoint)}`)"
    )


def weights_of(checkpoint: str) -> str:
    """Return the flag that starts a new run from the weights of a checkpoint; an adapter has to be merged first."""
    if (Path(checkpoint) / "adapter_config.json").is_file():
        return f"--model_name_or_path FOLDER, after hf-sched merge {checkpoint} --output FOLDER"
    return f"--model_name_or_path {checkpoint}"


def sharding_of_checkpoint(checkpoint: Path) -> Sharding:
    """Return how the optimizer's state in a checkpoint is sharded, from the names of its files."""
    if any(checkpoint.glob("pytorch_model_fsdp*")):
        return Sharding("FSDP")
    # DeepSpeed names the current folder in `latest`.
    latest = checkpoint / "latest"
    folders = [checkpoint / latest.read_text().strip()] if latest.is_file() else sorted(checkpoint.glob("global_step*"))
    if not folders:
        return Sharding(None)
    parts = len(list(folders[-1].glob("*zero_pp_rank_*_optim_states.pt")))
    if parts == 0:
        return Sharding(_STAGE_0)
    is_stage_3 = any(folders[-1].glob("zero_pp_rank_*_model_states.pt"))
    return Sharding("ZeRO-3" if is_stage_3 else "ZeRO-2", parts)


def _sharding_of_run(training_args: Any) -> Sharding:
    plugin = training_args.deepspeed_plugin
    if plugin is None:
        return Sharding("FSDP" if requests_fsdp(training_args) else None)
    if plugin.zero_stage == 0:
        return Sharding(_STAGE_0)
    return Sharding("ZeRO-3" if plugin.zero_stage == 3 else "ZeRO-2", training_args.world_size)
