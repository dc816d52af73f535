"""Whether a checkpoint fits how a run is sharded: one that does not is refused before a model is loaded.

Of a DeepSpeed checkpoint the Trainer without DeepSpeed takes the weights, and goes on with a new optimizer and
scheduler without a word; other mismatches fail once the model is loaded, in words that do not name the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sched.finetune.launch import asks_for_fsdp

_LAUNCH = {"ZeRO-2": "zero2.yaml", "ZeRO-3": "zero3.yaml", "FSDP": "fsdp2.yaml", None: "ddp.yaml"}
_STAGE_0 = "DeepSpeed without ZeRO"


@dataclass(frozen=True)
class Sharding:
    """How an optimizer's state is spread."""

    kind: str | None
    """ZeRO-2 (or ZeRO-1), ZeRO-3, DeepSpeed without ZeRO, FSDP; None where each process holds all of it."""
    parts: int | None = None
    """In how many parts it can only be read; None where any number of processes can."""

    def __str__(self) -> str:
        processes = f" on {self.parts} process{'es' if self.parts != 1 else ''}" if self.parts else ""
        return f"{self.kind or 'one process or DDP'}{processes}"


def check_sharding(training_args: Any, checkpoint: str | None) -> None:
    """Raise a ValueError for a checkpoint that this run cannot go on from as if it had never stopped."""
    if checkpoint is None or _is_universal(training_args):
        return
    written, wanted = sharding_of_checkpoint(Path(checkpoint)), _sharding_of_run(training_args)
    if written == wanted:
        return
    launch = f"accelerate_configs/{_LAUNCH[written.kind]}" if written.kind in _LAUNCH else "FILE"
    processes = f" --num_processes {written.parts}" if written.parts else ""
    weights = f"`model_name_or_path: {checkpoint}`"
    if (Path(checkpoint) / "adapter_config.json").is_file():
        weights = f"first `hf-sched merge {checkpoint} --output FOLDER`, then that folder"
    raise ValueError(
        f"{checkpoint} was written under {written}, and cannot be resumed under {wanted}: launch the run as it was "
        f"(`--config_file {launch}{processes}`), or begin a new one, with a new "
        f"optimizer, from its weights ({weights})"
    )


def sharding_of_checkpoint(checkpoint: Path) -> Sharding:
    """How the optimizer's state in a checkpoint is spread, by the names of its files."""
    if any(checkpoint.glob("pytorch_model_fsdp*")):
        return Sharding("FSDP")
    # DeepSpeed names the folder that counts in `latest`.
    latest = checkpoint / "latest"
    folders = [checkpoint / latest.read_text().strip()] if latest.is_file() else sorted(checkpoint.glob("global_step*"))
    if not folders:
        return Sharding(None)
    parts = len(list(folders[-1].glob("*zero_pp_rank_*_optim_states.pt")))
    if parts == 0:
        return Sharding(_STAGE_0)
    stage_3 = any(folders[-1].glob("zero_pp_rank_*_model_states.pt"))
    return Sharding("ZeRO-3" if stage_3 else "ZeRO-2", parts)


def _sharding_of_run(training_args: Any) -> Sharding:
    plugin = training_args.deepspeed_plugin
    if plugin is not None and plugin.zero_stage == 0:
        return Sharding(_STAGE_0)
    if plugin is not None:
        return Sharding("ZeRO-3" if plugin.zero_stage == 3 else "ZeRO-2", training_args.world_size)
    return Sharding("FSDP" if asks_for_fsdp(training_args) else None)


def _is_universal(training_args: Any) -> bool:
    """Whether DeepSpeed was told to read its own format for any number of processes."""
    config = getattr(training_args.deepspeed_plugin, "deepspeed_config", None) or {}
    requested = config.get("checkpoint")
    return isinstance(requested, Mapping) and bool(requested.get("load_universal"))
