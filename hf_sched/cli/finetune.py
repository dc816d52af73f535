"""`hf-sched sft`, `grpo` and `dpo`: launch a recipe with `accelerate launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import click

KINDS = {"sft": "supervised fine-tuning", "grpo": "GRPO", "dpo": "DPO"}


def launch_command(
    kind: str, flags: Sequence[str], num_processes: int | None, accelerate_config: str | None, *, has_gpu: bool
) -> list[str]:
    """Return the `accelerate launch` command of a recipe; without a GPU, it trains on CPU processes."""
    launch = [sys.executable, "-m", "hf_sched.finetune.accelerate_launch"]
    if accelerate_config:
        launch += ["--config_file", accelerate_config]
    elif not has_gpu:
        num_processes = num_processes or 1
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        # With `--cpu`, Accelerate would start a single process whatever `num_processes` is.
        launch += ["--multi_gpu"] if num_processes > 1 else []
    if num_processes:
        launch += ["--num_processes", str(num_processes)]
    cpu = [] if has_gpu or any(flag.partition("=")[0] == "--use_cpu" for flag in flags) else ["--use_cpu", "true"]
    return [*launch, "-m", f"hf_sched.finetune.{kind}", *flags, *cpu]


def _command(kind: str) -> click.Command:
    @click.command(
        kind,
        context_settings={"ignore_unknown_options": True},
        short_help=f"Train with {KINDS[kind]}.",
        help=f"Train with {KINDS[kind]}: FLAGS are arguments of the recipe and override CONFIG.",
    )
    @click.option("--config", metavar="FILE", required=True, help="YAML file of training arguments.")
    @click.option("--num-processes", type=click.IntRange(1), metavar="N", help="By default one per GPU, or one.")
    @click.option("--accelerate-config", type=click.Path(exists=True), metavar="FILE", help="For accelerate launch.")
    @click.argument("flags", nargs=-1, type=click.UNPROCESSED)
    def command(config: str, num_processes: int | None, accelerate_config: str | None, flags: tuple[str, ...]) -> None:
        from hf_sched.plan.training_config import TrainingConfig, read_arguments

        read_arguments(config)  # an unsuitable file is rejected before torch is imported
        import torch

        from hf_sched.finetune.launch import NUM_PROCESSES
        from hf_sched.plan.processes import read_accelerate_config

        launch = read_accelerate_config(TrainingConfig(kind, {}), accelerate_config) or {}
        requested = num_processes or launch.get("num_processes")
        environment = {**os.environ, **({NUM_PROCESSES: str(requested)} if requested else {})}
        has_gpu, flags = torch.accelerator.is_available(), ("--config", config, *flags)
        words = launch_command(kind, flags, num_processes, accelerate_config, has_gpu=has_gpu)
        started = f"{requested} processes" if (requested or 1) > 1 else "1 process"
        started = "one process per GPU" if has_gpu and not requested else started
        click.echo(f"hf-sched {kind}: starting {started}; libraries, data and model load first", err=True)
        sys.exit(subprocess.run(words, env=environment, check=False).returncode)

    return command


sft, grpo, dpo = (_command(kind) for kind in KINDS)
