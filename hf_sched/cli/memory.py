"""`hf-sched memory`: estimate the memory of a run before it starts."""

from __future__ import annotations

import sys
from typing import Any

import click

from hf_sched.cli.output import print_json
from hf_sched.plots.console import console, waiting
from hf_sched.schedules.validation import ArgumentError


@click.command("memory", short_help="Estimate the GPU memory of a run.")
@click.argument("config", type=click.Path())
@click.option("--kind", type=click.Choice(["sft", "grpo", "dpo"]), help="The recipe; by default guessed from the keys.")
@click.option("--accelerate-config", metavar="FILE", help="The file for `accelerate launch --config_file`.")
@click.option("--num-processes", type=click.IntRange(1), metavar="N", help="Processes; by default those of FILE, or 1.")
@click.option("--gpu-memory", metavar="SIZE", help="Of one GPU: 80GB, 24GiB; by default that of this machine's.")
@click.option("--length", type=click.IntRange(1), metavar="N", help="Tokens of the longest sample (`max_length`).")
@click.option("--prompt-length", type=click.IntRange(1), default=512, help="Of the longest prompt (GRPO): 512.")
@click.option("--json", is_flag=True, help="Write a JSON object for machines, in bytes.")
def estimate_memory(
    config: str,
    kind: str | None,
    gpu_memory: str | None,
    length: int | None,
    prompt_length: int,
    json: bool,
    **launch: Any,
) -> None:
    """Estimate the peak memory of a run on each GPU, and name changes that fit if it does not.

    CONFIG is the recipe's YAML file. Only the config.json of the model is read. The exit status is 1 if the run does
    not fit.
    """
    with waiting("reading the arguments and the shape of the model"):
        from hf_sched.finetune.memory.before_loading import describe, show
        from hf_sched.finetune.memory.estimate import alternative, estimate
        from hf_sched.finetune.memory.run_settings import read_config

        run = read_config(config, kind, **launch, length=length, prompt=prompt_length)
        device_bytes = _device_bytes(gpu_memory)
        found = estimate(run, device_bytes)
    fits = None if device_bytes is None else found.total <= device_bytes
    if json:
        change = alternative(run, device_bytes) if device_bytes and not fits else None
        sizes = {"total": found.total, "device": device_bytes, "parameters": run.shape.parameters}
        stages = {"trained": found.trained, "peak": found.peak, "breakdown": found.breakdown}
        fitting = {"change": change[0], "total": change[1].total} if change else None
        print_json({**sizes, **stages, "fits": fits, "alternative": fitting})
    else:
        show(found, describe(found, device_bytes), console())
    sys.exit(fits is False)


def _device_bytes(size: str | None) -> int | None:
    if size is None:
        import torch

        return int(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else None
    from accelerate.utils.modeling import convert_file_size_to_int

    try:
        return int(convert_file_size_to_int(size.replace(" ", "")))
    except ValueError:
        raise ArgumentError("gpu_memory", "a size such as 80GB or 24GiB", size) from None
