"""On how many processes a recipe runs: as the launch line in the comment at its top says."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sched.arguments import Whole
from hf_sched.run_config import RunConfig

# For these `accelerate launch` starts one process, whatever else its file says.
_ONE_PROCESS = ("NO", "MULTI_CPU")


@dataclass(frozen=True)
class WorldSize:
    """How many processes there are, and how that is known."""

    processes: int
    source: str


def find_world_size(config: RunConfig, given: int | None = None) -> WorldSize:
    """The number given, else that of the launch line, else 1.

    Raises:
        ValueError: A number is no whole number from 1 up, or the launch shards batches along other dimensions.
    """
    if given is not None:
        return WorldSize(Whole(1)("world_size", given), "as given")
    for words in _launch_lines(config.comments):
        found = _of_torchrun(words) if words[0] == "torchrun" else _of_accelerate(words, config)
        if found:
            return found
    return WorldSize(1, "assumed: neither `--world-size` nor the first comment of the file says a number of processes")


def _launch_lines(comments: str) -> list[list[str]]:
    """The words of each launch, from the launcher on."""
    lines = []
    for line in comments.replace("\\\n", " ").splitlines():
        words = line.split()
        for place, word in enumerate(words):
            if word == "torchrun" or words[place : place + 2] == ["accelerate", "launch"]:
                lines.append(words[place:])
                break
    return lines


def _of_accelerate(words: list[str], config: RunConfig) -> WorldSize | None:
    flags = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--config_file", "--config-file")
    flags.add_argument("--num_processes", "--num-processes")
    asked, _ = flags.parse_known_args(words)
    if asked.num_processes is not None:
        return WorldSize(
            Whole(1)("--num_processes", asked.num_processes), "`--num_processes` of the launch line in the file"
        )
    if asked.config_file is None:
        return None
    path = _find(asked.config_file, Path(config.source))
    if path is None:
        return WorldSize(1, f"assumed: the launch line names {asked.config_file}, which is not there")
    import yaml

    launch = yaml.safe_load(path.read_text(encoding="utf-8"))
    _refuse_other_parallelism(launch, asked.config_file)
    if launch.get("distributed_type", "NO") in _ONE_PROCESS:
        return WorldSize(1, f"{asked.config_file}, named in the launch line")
    number = Whole(1)(f"num_processes of {asked.config_file}", launch.get("num_processes", 1))
    return WorldSize(number, f"{asked.config_file}, named in the launch line")


def _of_torchrun(words: list[str]) -> WorldSize | None:
    flags = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument("--nproc_per_node", "--nproc-per-node", default="1")
    flags.add_argument("--nnodes", default="1")
    asked, _ = flags.parse_known_args(words)
    if not (asked.nproc_per_node.isdecimal() and asked.nnodes.isdecimal()):  # `gpu`, or from 1 to 4 nodes
        return None
    return WorldSize(int(asked.nproc_per_node) * int(asked.nnodes), "the launch line in the file")


def _find(name: str, source: Path) -> Path | None:
    """A file that a launch line names, seen from here or from a folder that the configuration lies in."""
    for folder in (Path(), *source.resolve().parents):
        if (folder / name).is_file():
            return folder / name
    return None


def _refuse_other_parallelism(launch: dict[str, Any], name: str) -> None:
    asked = launch.get("parallelism_config") or {}
    shared = [
        key for key, size in asked.items() if key.endswith(("tp_size", "cp_size", "sp_size")) and size not in (1, None)
    ]
    if shared:
        raise ValueError(
            f"{name} lets several processes share a batch ({', '.join(shared)}), which a plan cannot count: give the "
            "number of processes with batches of their own as `--world-size`"
        )
