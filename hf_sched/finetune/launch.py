"""What `accelerate launch` was requested, held against what this process is: several ways to miss it are silent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import psutil  # type: ignore[import-untyped]
import transformers
from accelerate import PartialState
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType

_TRUE = ("1", "true", "yes", "y", "on", "t")


@dataclass(frozen=True)
class _Asked:
    """What the launcher was requested, as far as this process can tell."""

    num_processes: int | None = None
    distributed_type: str | None = None


def check_launch(training_args: Any) -> None:
    """Refuse a launch that silently became something else; to be called before the model is loaded.

    Raises:
        ValueError: FSDP or DeepSpeed was requested and would not be used, the number of processes is not the one requested
            for, or several GPUs were left to `nn.DataParallel`.
    """
    launcher = _asked_of_launcher()
    state = training_args.distributed_state
    found = f"{training_args.world_size} process{'es' if training_args.world_size > 1 else ''}"
    found += f" ({state.distributed_type.value}, device {training_args.device})"

    if (asks_for_fsdp(training_args) or launcher.distributed_type == "FSDP") and not _gets_fsdp(state):
        raise ValueError(
            f"FSDP was requested, but nothing would be sharded: this is {found}. Accelerate shards on GPUs alone: with "
            "GPUs, write `use_cpu: false` in the recipe's YAML, leave `--cpu` away and start it by `accelerate launch "
            "--config_file accelerate_configs/fsdp2.yaml`; without, take accelerate_configs/cpu_2proc.yaml"
        )
    if _asks_for_deepspeed(training_args, launcher) and not _gets_deepspeed(training_args):
        raise ValueError(
            f"DeepSpeed was requested, but would not be used: this is {found}. Leave `--cpu` and ACCELERATE_USE_CPU "
            "away and start it by `accelerate launch --config_file accelerate_configs/zero2.yaml` (or zero3.yaml)"
        )
    # The launcher of an outer level may be out of sight (torchrun, mpirun); WORLD_SIZE is what its processes are told.
    requested = launcher.num_processes or int(os.environ.get("WORLD_SIZE") or training_args.world_size)
    if requested != training_args.world_size:
        raise ValueError(
            f"{requested} processes were requested, but this training has {found}: "
            + _how_to_get(requested, training_args, launcher)
        )
    if training_args.n_gpu > 1:
        raise ValueError(
            f"one process sees {training_args.n_gpu} GPUs and would use nn.DataParallel, which grows the batch: "
            "to train on all of them, `accelerate launch --config_file accelerate_configs/ddp.yaml "
            f"--num_processes {training_args.n_gpu}`; to train on one, `--gpu_ids 0` or CUDA_VISIBLE_DEVICES=0"
        )


def asks_for_fsdp(training_args: Any) -> bool:
    """Whether the arguments, or the launcher by the environment, ask for FSDP."""
    return bool(training_args.fsdp) or _flag("ACCELERATE_USE_FSDP")


def quiet_other_ranks() -> None:
    """Show progress bars on the main process alone; to be called after the training arguments, before data are read."""
    # PartialState() would start the process group with its own defaults if the training arguments had not done so.
    if PartialState._shared_state and not PartialState().is_main_process:
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()  # huggingface_hub's too


def _gets_fsdp(state: PartialState) -> bool:
    # It says FSDP only once an Accelerator exists, which goes on to it from any of the MULTI_ states of an accelerator.
    return state.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU)


def _asks_for_deepspeed(training_args: Any, launcher: _Asked) -> bool:
    asked_here = bool(training_args.deepspeed) or _flag("ACCELERATE_USE_DEEPSPEED")
    return asked_here or launcher.distributed_type == "DEEPSPEED"


def _gets_deepspeed(training_args: Any) -> bool:
    # The Accelerator that the Trainer will make drops the plugin where Accelerate is told to stay on the CPU.
    return training_args.deepspeed_plugin is not None and not _flag("ACCELERATE_USE_CPU")


def _how_to_get(requested: int, training_args: Any, launcher: _Asked) -> str:
    kind = training_args.distributed_state.distributed_type
    if "LOCAL_RANK" not in os.environ and launcher.distributed_type in ("NO", "MULTI_CPU"):
        return (
            f"`accelerate launch` starts a single process for `distributed_type: {launcher.distributed_type}`. Take "
            "accelerate_configs/ddp.yaml, or cpu_2proc.yaml without a GPU: both say `distributed_type: MULTI_GPU`"
        )
    if kind == DistributedType.NO and training_args.device.type == "cpu":
        return (
            "each would train alone and write over the others. Without a GPU, write `use_cpu: true` in the recipe's "
            "YAML (or `--use_cpu true` behind it)"
        )
    return f"start it by `accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes {requested}`"


def _asked_of_launcher() -> _Asked:
    """Read the command line of the `accelerate launch` that started this process; nothing where that cannot be told.

    A launch that starts one process where several were requested leaves no number in the environment: there is no other
    place to learn of it.
    """
    try:
        parent = psutil.Process().parent()
        words = _words_of_launch(parent.cmdline()) if parent else None
        if parent is None or words is None:
            return _Asked()
        return _asked_by_words(words, Path(parent.cwd()))
    # Whatever goes wrong here (no rights to look, an odd command line, another version of Accelerate), there is less to
    # compare then, which is no reason to stop a training. SystemExit is argparse's way to refuse.
    except (Exception, SystemExit):
        return _Asked()


def _words_of_launch(command: list[str]) -> list[str] | None:
    # `accelerate launch ...`, `accelerate-launch ...` or `python -m accelerate.commands.launch ...`.
    for place, word in enumerate(command):
        name = Path(word).stem
        if name == "accelerate-launch" or (word == "accelerate.commands.launch" and command[place - 1] == "-m"):
            return command[place + 1 :]
        if name in ("accelerate", "accelerate_cli") and command[place + 1 : place + 2] == ["launch"]:
            return command[place + 2 :]
    return None


def _asked_by_words(words: list[str], folder: Path) -> _Asked:
    args = launch_command_parser().parse_args(words)
    file = folder / (args.config_file or default_config_file)
    config = load_config_from_file(str(file)) if file.is_file() and (args.config_file or not args.cpu) else None
    num_processes = args.num_processes or (config.num_processes if config else None)
    # Flags win over the file, as they do in Accelerate.
    if args.use_fsdp or args.use_deepspeed or args.multi_gpu:
        kind = "FSDP" if args.use_fsdp else "DEEPSPEED" if args.use_deepspeed else "MULTI_GPU"
    else:
        kind = config.distributed_type.value if config else "NO"
    return _Asked(num_processes if num_processes and num_processes > 0 else None, kind)


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in _TRUE
