"""Checks that the process group matches the launch command. Several mismatches are silent otherwise.

What was requested is read from the environment variables that launchers set for their processes.
"""

from __future__ import annotations

import os
from typing import Any

from accelerate.utils import DistributedType, parse_flag_from_env

NUM_PROCESSES = "HF_SCHED_NUM_PROCESSES"
"""Set by `hf-sched sft|grpo|dpo`: the number of processes requested.

`accelerate launch` sets no variable if it starts a single process instead of several.
"""
_DDP = "use `accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes {}`"


def check_launch(training_args: Any) -> None:
    """Raise a ValueError if this process group is not the one requested, before the model is loaded."""
    state = training_args.distributed_state
    processes = f"{training_args.world_size} process{'es' if training_args.world_size > 1 else ''}"
    found = f"{processes} ({state.distributed_type.value}, device {training_args.device})"

    if requests_fsdp(training_args) and state.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise ValueError(
            f"FSDP was requested, but nothing would be sharded: this is {found}. Accelerate shards on GPUs only: omit "
            "`--cpu` and `use_cpu: true`, and use accelerate_configs/fsdp2.yaml; without GPUs, use cpu_2proc.yaml"
        )
    requests_deepspeed = bool(training_args.deepspeed) or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    # The Trainer's Accelerator drops the plugin under ACCELERATE_USE_CPU.
    uses_deepspeed = training_args.deepspeed_plugin is not None and not parse_flag_from_env("ACCELERATE_USE_CPU")
    if requests_deepspeed and not uses_deepspeed:
        raise ValueError(
            f"DeepSpeed was requested, but would not be used: this is {found}. Omit `--cpu` and ACCELERATE_USE_CPU, "
            "and use accelerate_configs/zero2.yaml or zero3.yaml"
        )
    requested = int(os.environ.get(NUM_PROCESSES) or os.environ.get("WORLD_SIZE") or training_args.world_size)
    if requested != training_args.world_size:
        remedy = _remedy(training_args, requested)
        raise ValueError(f"{requested} processes were requested, but this training has {found}: {remedy}")
    if training_args.n_gpu > 1:
        raise ValueError(
            f"one process sees {training_args.n_gpu} GPUs and would use nn.DataParallel, which multiplies the batch "
            f"size. For all of them, {_DDP.format(training_args.n_gpu)}; for one, set CUDA_VISIBLE_DEVICES=0"
        )


def requests_fsdp(training_args: Any) -> bool:
    """Return whether the arguments or the launcher request FSDP."""
    return bool(training_args.fsdp) or parse_flag_from_env("ACCELERATE_USE_FSDP")


def _remedy(training_args: Any, requested: int) -> str:
    if "LOCAL_RANK" not in os.environ:
        return (
            "`accelerate launch` starts a single process for `distributed_type: NO` and `MULTI_CPU`. Use "
            "`distributed_type: MULTI_GPU`, as accelerate_configs/ddp.yaml and cpu_2proc.yaml do"
        )
    if training_args.distributed_state.distributed_type == DistributedType.NO and training_args.device.type == "cpu":
        return "each would train alone and overwrite the others. Without a GPU, write `use_cpu: true` in the YAML"
    return _DDP.format(requested)
