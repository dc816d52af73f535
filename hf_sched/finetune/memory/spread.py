"""How the work is spread over processes: what an accelerate config, or the run itself, says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_KINDS = ("DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP2")


@dataclass(frozen=True)
class Spread:
    """One process, or several by DDP, by DeepSpeed's ZeRO or by FSDP2."""

    kind: str = "one process"
    """`one process`, or one of DDP, ZeRO-1, ZeRO-2, ZeRO-3, FSDP2."""
    processes: int = 1
    mixed_precision: str = "no"
    """What Accelerate is told, for a recipe that has neither `bf16` nor `fp16`."""
    offload_optimizer: bool = False
    offload_weights: bool = False
    reshard: bool = True
    """FSDP2: whether a layer's weights are given back after its forward pass (ZeRO-3's counterpart), or kept."""

    @property
    def shards_optimizer(self) -> bool:
        """Whether each process keeps a share of the optimizer's states."""
        return self.kind.startswith(("ZeRO", "FSDP"))

    @property
    def shards_weights(self) -> bool:
        """Whether each process keeps a share of the weights."""
        return self.kind in ("ZeRO-3", "FSDP2")

    def __str__(self) -> str:
        many = f"{self.processes} process{'' if self.processes == 1 else 'es'}"
        return many if self.kind == "one process" else f"{self.kind}, {many}"


def read_spread(path: str | Path, processes: int | None = None) -> Spread:
    """What an accelerate config says, with another number of processes if one is given.

    Raises:
        ValueError: There is no such file, it is no mapping, or it spreads the work in a way that is not known here.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`--accelerate_config` must be a YAML file that exists, received {str(path)!r}")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"`--accelerate_config` must be a YAML file of Accelerate's, received {str(path)!r}")
    kind = str(config.get("distributed_type", "NO"))
    number = processes or int(config.get("num_processes") or 1)
    mixed = str(config.get("mixed_precision") or "no").replace("False", "no")
    if kind == "DEEPSPEED":
        return _deepspeed(dict(config.get("deepspeed_config") or {}), number, mixed, path.parent)
    if kind == "FSDP":
        return _fsdp(
            {str(key).removeprefix("fsdp_"): value for key, value in config["fsdp_config"].items()}, number, mixed
        )
    if kind in ("NO", "MULTI_GPU", "MULTI_CPU"):
        return Spread("DDP" if number > 1 else "one process", number, mixed)
    raise ValueError(f"`distributed_type` must be NO, MULTI_GPU, FSDP or DEEPSPEED, received {kind!r} ({path})")


def spread_of_run(training_args: Any) -> Spread:
    """How the run that is about to begin is spread."""
    processes, mixed = training_args.world_size, os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    plugin = training_args.deepspeed_plugin
    if plugin is not None:
        stage = plugin.zero_stage
        zero = plugin.deepspeed_config.get("zero_optimization", {})
        return Spread(
            f"ZeRO-{stage}" if stage else "DDP",
            processes,
            mixed,
            offload_optimizer=_is_off_device(zero.get("offload_optimizer")),
            offload_weights=_is_off_device(zero.get("offload_param")),
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        read = {
            name: os.environ.get(f"FSDP_{name.upper()}", "false")
            for name in ("offload_params", "reshard_after_forward")
        }
        return _fsdp({"version": os.environ.get("FSDP_VERSION", "1"), **read}, processes, mixed)
    return Spread("DDP" if processes > 1 else "one process", processes, mixed)


def _deepspeed(config: dict[str, Any], processes: int, mixed: str, folder: Path) -> Spread:
    if name := config.get("deepspeed_config_file"):
        file = Path(name) if Path(name).is_file() else folder / name
        if not file.is_file():
            raise ValueError(f"`deepspeed_config_file` must be a JSON file that exists, received {name!r}")
        zero = json.loads(file.read_text(encoding="utf-8")).get("zero_optimization", {})
        stage = int(zero.get("stage", 0))
        optimizer, weights = (_is_off_device(zero.get(key)) for key in ("offload_optimizer", "offload_param"))
    else:
        stage = int(config.get("zero_stage", 2))
        optimizer, weights = (
            _is_off_device({"device": config.get(f"offload_{of}_device")}) for of in ("optimizer", "param")
        )
    kind = f"ZeRO-{stage}" if stage else "DDP"
    if kind not in _KINDS:
        raise ValueError(f"`zero_stage` must be 0, 1, 2 or 3, received {stage}")
    return Spread(kind, processes, mixed, optimizer, weights)


def _fsdp(config: Mapping[str, Any], processes: int, mixed: str) -> Spread:
    if str(config.get("version", 1)) != "2":
        raise ValueError(
            f"`fsdp_version` must be 2, received {config.get('version', 1)!r}: FSDP1 is not estimated; take "
            "accelerate_configs/fsdp2.yaml"
        )
    off = _is_true(config.get("offload_params", False))
    return Spread("FSDP2", processes, mixed, off, off, _is_true(config.get("reshard_after_forward", True)))


def _is_off_device(offload: Any) -> bool:
    return bool(offload) and str(dict(offload).get("device") or "none") != "none"


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "full_shard")
