"""On how many processes a recipe runs: as the launch line in the comment at its top says."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_sched.plan.training_config import KINDS, RunConfig
from hf_sched.schedules.validation import Whole

# Arguments of the launcher that the command `trl` takes from its YAML file.
LAUNCH_KEYS = ("accelerate_config", "num_processes")
# For these `accelerate launch` starts one process, whatever else its file says.
_ONE_PROCESS = ("NO", "MULTI_CPU")


@dataclass(frozen=True)
class WorldSize:
    """How many processes there are, and how that is known."""

    processes: int
    source: str
    assumed: bool = False
    """Whether nothing says it, so that it is only the smallest there may be."""


def find_world_size(config: RunConfig, given: int | None = None) -> WorldSize:
    """The number given, else that of the launch line, else 1.

    Raises:
        ValueError: A number is no whole number from 1 up, or the launch shards batches along other dimensions.
    """
    if given is not None:
        return WorldSize(Whole(1)("world_size", given), "as given")
    for words in _launch_lines(config.comments) or [[]]:
        found = _of_torchrun(words) if words[:1] == ["torchrun"] else _of_accelerate(words, config)
        if found:
            return found
    return WorldSize(
        1, "assumed: no launch line in the comments at the top says more; `--world-size N` does", assumed=True
    )


def _launch_lines(comments: str) -> list[list[str]]:
    """The words of each launch, from the launcher on."""
    lines = []
    for line in comments.replace("\\\n", " ").splitlines():
        words = line.split()
        for place, word in enumerate(words):
            following = words[place + 1] if place + 1 < len(words) else ""
            if word == "torchrun" or (word, following) == ("accelerate", "launch") or _is_trl(word, following):
                lines.append(words[place:])
                break
    return lines


def _is_trl(word: str, following: str) -> bool:
    return word == "trl" and following in KINDS


def _of_accelerate(words: list[str], config: RunConfig) -> WorldSize | None:
    flags = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config_file", "--config-file", "--accelerate_config")
    flags.add_argument("--num_processes", "--num-processes")
    flags.add_argument("--multi_gpu", "--multi-gpu", action="store_true")
    requested, _ = flags.parse_known_args(words)
    # The command `trl` takes the launcher's arguments from its YAML file, too.
    name = requested.config_file or config.given.get("accelerate_config")
    number = requested.num_processes or config.given.get("num_processes")
    path = _find(str(name), Path(config.source)) if name else None
    launch = _read(path, str(name)) if path else {}
    if path and launch.get("distributed_type", "NO") in _ONE_PROCESS and not requested.multi_gpu:
        return WorldSize(1, f"{name} of the launch, which starts one")
    if number is not None:
        return WorldSize(Whole(1)("num_processes", number), "`num_processes` of the launch")
    if path:
        return WorldSize(Whole(1)(f"num_processes of {name}", launch.get("num_processes", 1)), f"{name} of the launch")
    return WorldSize(1, f"assumed: the launch names {name}, which is not there", assumed=True) if name else None


def _read(path: Path, name: str) -> dict[str, Any]:
    import yaml

    launch = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(launch, dict):
        raise ValueError(f"{name} must be a file that `accelerate config` writes, received {launch!r}")
    _refuse_other_parallelism(launch, name)
    return launch


def _of_torchrun(words: list[str]) -> WorldSize | None:
    flags = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--nproc_per_node", "--nproc-per-node", default="1")
    flags.add_argument("--nnodes", default="1")
    requested, _ = flags.parse_known_args(words)
    if not (requested.nproc_per_node.isdecimal() and requested.nnodes.isdecimal()):  # `gpu`, or from 1 to 4 nodes
        return None
    return WorldSize(int(requested.nproc_per_node) * int(requested.nnodes), "torchrun of the launch")


def _find(name: str, source: Path) -> Path | None:
    """A file that a launch names, seen from here or from a folder that the configuration lies in; or one of TRL's."""
    for folder in (Path(), *source.resolve().parents):
        if (folder / name).is_file():
            return folder / name
    trl = find_spec("trl")
    for folder in map(Path, (trl and trl.submodule_search_locations) or ()):
        if (folder / "accelerate_configs" / f"{name}.yaml").is_file():
            return folder / "accelerate_configs" / f"{name}.yaml"
    return None


def _refuse_other_parallelism(launch: dict[str, Any], name: str) -> None:
    requested = launch.get("parallelism_config") or {}
    shared = [
        key
        for key, size in requested.items()
        if key.endswith(("tp_size", "cp_size", "sp_size")) and size not in (1, None)
    ]
    if shared:
        raise ValueError(
            f"{name} lets several processes share a batch ({', '.join(shared)}), which a plan cannot count: give the "
            "number of processes with batches of their own as `--world-size`"
        )
