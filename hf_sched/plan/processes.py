"""How a run is launched: the number of processes, and the file that `accelerate launch` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import MAPPING, ArgumentError, Whole

# Arguments for the launcher, which the command `trl` takes from the configuration.
LAUNCH_KEYS = ("accelerate_config", "num_processes")
_SHARING = ("tp_size", "cp_size", "sp_size")  # processes that share a batch


@dataclass(frozen=True)
class WorldSize:
    """The number of processes and how it is known; `assumed` if nothing specifies it."""

    processes: int
    source: str
    assumed: bool = False


def find_world_size(
    config: TrainingConfig, num_processes: int | None = None, accelerate_config: str | None = None
) -> WorldSize:
    """The number of processes: as given, else from the Accelerate configuration or the keys of the file, else 1.

    `accelerate_config` is a file for `accelerate launch --config_file` or a name that `trl --accelerate_config` takes.
    """
    if num_processes is not None:
        return WorldSize(Whole(1)("num_processes", num_processes), "as given")
    name = accelerate_config or config.given.get("accelerate_config")
    launch = read_accelerate_config(config, accelerate_config)
    number = None if accelerate_config else config.given.get("num_processes")
    if launch is not None:
        sizes = MAPPING("parallelism_config", launch.get("parallelism_config") or {})
        if shared := [key for key in sizes if key.endswith(_SHARING) and sizes[key] not in (1, None)]:
            rule = f"must give every process its own batches, but sets {', '.join(shared)}"
            remedy = "give the number of processes with their own batches as `--num-processes`"
            raise ArgumentError("accelerate_config", received=name, rule=rule, hint=remedy)
        if launch.get("distributed_type", "NO") in ("NO", "MULTI_CPU"):  # whatever the number
            return WorldSize(1, f"{name}, which starts one")
        if number is None:
            return WorldSize(Whole(1)(f"num_processes of {name}", launch.get("num_processes", 1)), str(name))
    if number is None:
        return WorldSize(1, "assumed; set it with `--num-processes`", assumed=True)
    return WorldSize(Whole(1)("num_processes", number), "`num_processes`")


def read_accelerate_config(config: TrainingConfig, name: str | None = None) -> Mapping[str, Any] | None:
    """The Accelerate configuration of this name, or the one that the file names; None if there is neither."""
    import yaml

    name = name or config.given.get("accelerate_config")
    if not name:
        return None
    trl = find_spec("trl")
    folders = (trl.submodule_search_locations or ()) if trl else ()
    of_trl = (Path(folder) / "accelerate_configs" / f"{name}.yaml" for folder in folders)
    path = find_file(str(name), config.source) or next(filter(os.path.isfile, of_trl), None)
    if path is None:
        raise ArgumentError("accelerate_config", "a file that exists, or a name of TRL's (zero2)", name)
    launch = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(launch, Mapping):
        raise ArgumentError("accelerate_config", "a file that `accelerate config` writes", name)
    return launch


def find_file(name: str, source: str) -> Path | None:
    """A file by its name, relative to the working directory or to a folder that contains the configuration."""
    paths = (folder / name for folder in (Path(), *Path(source).resolve().parents))
    return next(filter(os.path.isfile, paths), None)
