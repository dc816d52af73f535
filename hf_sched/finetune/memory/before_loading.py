"""Compares the estimate with the memory of the device before the model is loaded, and shows it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_sched.finetune.launch import requests_fsdp
from hf_sched.finetune.memory.estimate import ASSUMPTIONS, GIB, Estimate, alternative, estimate
from hf_sched.finetune.memory.run_settings import Run, read_run
from hf_sched.plots.console import console
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

CLOSE = 0.9  # of the device's memory: above it the estimate is too inexact to promise that the run fits
ROWS = 2000  # of the data, whose lengths are measured


def check_memory(
    kind: str, training_args: Any, model_args: Any, rows: Iterable[Mapping[str, Any]], *, in_full: bool
) -> None:
    """Show what a run needs and what the device has, and warn with changes that fit if it may not fit.

    `kind` is `sft`, `grpo` or `dpo`, and `rows` are the training data. A dry run (`in_full`) shows a table; on a CPU
    only a dry run is checked.

    Raises:
        ArgumentError: Weights, gradients and optimizer states alone do not fit.
    """
    device = training_args.device.type
    if training_args.local_process_index != 0 or not (device == "cuda" or (in_full and device == "cpu")):
        return
    memory = device_memory(training_args)
    try:
        found = estimate(read_arguments(kind, training_args, model_args, rows), memory)
        verdict = describe(found, memory)
    except Exception as error:  # a model that cannot be estimated must not stop a training run
        logger.warning("memory: not estimated (%s)", error)
        return
    if in_full:
        show(found, verdict, console())
    if found.least > memory:
        needs = f"needs {_gib(found.least)} GiB for weights, gradients and optimizer states alone"
        raise ArgumentError("model_name_or_path", rule=f"{needs}, but {_gib(memory)} GiB are available", hint=verdict)
    if found.total > CLOSE * memory or not in_full:
        logger.log(logging.WARNING if found.total > CLOSE * memory else logging.INFO, "memory: %s", verdict)


def read_arguments(kind: str, training_args: Any, model_args: Any, rows: Iterable[Mapping[str, Any]]) -> Run:
    """Read what the memory of this process depends on; arguments as in `check_memory`."""
    arguments = {**vars(model_args), **vars(training_args), "use_cpu": training_args.device.type == "cpu"}
    longest = _longest_sample(kind, arguments, rows)
    return read_run(kind, arguments.get, _launch(training_args), training_args.world_size, longest, longest)


def device_memory(training_args: Any) -> int:
    """Return the free bytes of the GPU, or of the machine divided by its processes."""
    if training_args.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(training_args.device)[0])
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", training_args.world_size))


def _launch(training_args: Any) -> dict[str, Any]:
    """Return the launch of this process in the form of an Accelerate config."""
    launch: dict[str, Any] = {"mixed_precision": os.environ.get("ACCELERATE_MIXED_PRECISION")}
    if training_args.deepspeed_plugin is not None:
        launch["deepspeed_config"] = training_args.deepspeed_plugin.deepspeed_config
    elif requests_fsdp(training_args):
        launch |= {"distributed_type": "FSDP", "fsdp_config": {k.lower(): v for k, v in os.environ.items()}}
    return launch


def _longest_sample(kind: str, arguments: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> int:
    """Return the tokens of the longest of the first rows (GRPO: of their prompts).

    Quotation marks and keys, which `str` writes, take the place of those of a chat template.
    """
    from transformers import AutoTokenizer

    given = {"revision": arguments["model_revision"], "trust_remote_code": arguments.get("trust_remote_code")}
    tokenizer = AutoTokenizer.from_pretrained(arguments["model_name_or_path"], **given)
    columns = {"grpo": ["prompt"], "dpo": ["prompt", "chosen"]}.get(kind)
    texts = (str([row.get(name) for name in columns or row]) for row in islice(rows, ROWS))
    return len(tokenizer(max(texts, key=len, default=""))["input_ids"])


def show(found: Estimate, verdict: str, out: Console) -> None:
    """Print a table of all parts at each stage of a step, the verdict and the assumptions."""
    run = found.run
    launch = run.parallelism if run.processes == 1 else f"{run.parallelism} with {run.processes} processes"
    size = f"{run.shape.parameters:,} parameters, {found.trained:,} trained"
    title = f"[bold]Estimated memory per process[/], {run.kind} of {run.model_name_or_path}"
    out.print(f"{title} ({launch}, {run.batch} x {run.length} tokens, {size})")
    table = Table("GiB", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for stage in found.breakdown:
        table.add_column(stage, justify="right")
    for part in dict.fromkeys(part for parts in found.breakdown.values() for part in parts):
        table.add_row(part, *(_gib(parts[part]) if part in parts else "-" for parts in found.breakdown.values()))
    table.add_row("total", *(_gib(sum(parts.values())) for parts in found.breakdown.values()), style="bold")
    out.print(table)
    out.print(verdict)
    out.print(f"assumed: {ASSUMPTIONS}", style="dim")


def describe(found: Estimate, device_bytes: int | None) -> str:
    """Compare an estimate with the memory of the device; if it may not fit, name changes that fit."""
    if device_bytes is None:
        return f"about {_gib(found.total)} GiB at the {found.peak}; pass `--gpu-memory 80GB` to see whether it fits"
    needs = f"about {_gib(found.total)} of {_gib(device_bytes)} GiB at the {found.peak}"
    if found.total <= CLOSE * device_bytes:
        return f"{needs}: it fits"
    verdict = f"{needs}: it {'will' if found.total > device_bytes else 'may'} not fit"
    fitting = alternative(found.run, device_bytes)
    if fitting is None:
        return f"{verdict}; no change that was tried fits: use a smaller model, larger GPUs, or more of them"
    text, after = fitting
    return f"{verdict}; this would: {text} ({_gib(after.total)} GiB)"


def _gib(size: float) -> str:
    return f"{size / GIB:.3g}" if size < 10 * GIB else f"{size / GIB:.1f}"
