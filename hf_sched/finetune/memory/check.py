"""Compares the estimate with the memory of the device before the model is loaded, and shows it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_sched.finetune.memory.estimate import ASSUMPTIONS, GIB, Estimate, alternatives, estimate
from hf_sched.finetune.memory.read import Parallelism, read_fsdp, read_parallelism, read_run, read_zero
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

CLOSE = 0.9  # of the device's memory: above it the estimate is too inexact to promise that the run fits
ROWS = 2000  # of the data, whose lengths are measured
TEMPLATE_TOKENS = 32  # that a chat template may add


def check_memory(
    kind: str, training_args: Any, model_args: Any, rows: Iterable[Mapping[str, Any]], *, in_full: bool
) -> None:
    """Show what a run needs and what the device has, once per machine, before the model is loaded.

    A run that may not fit gets a warning that names changes that fit. On a CPU only a dry run (`in_full`) is checked.

    Args:
        kind: `sft`, `grpo` or `dpo`.
        training_args: The trainer's arguments.
        model_args: TRL's ModelConfig.
        rows: The training data.
        in_full: Whether to show a table or a line.

    Raises:
        ArgumentError: Weights, gradients and optimizer states alone do not fit.
    """
    device = training_args.device.type
    if training_args.local_process_index != 0 or not (device == "cuda" or (in_full and device == "cpu")):
        return
    memory = device_memory(training_args)
    try:
        longest = _longest_sample(kind, training_args, model_args, rows)
        run = read_run(
            kind,
            lambda name: getattr(training_args, name, None),
            model_args,
            _parallelism_of(training_args),
            length=longest,
            prompt=longest,
            on_gpu=device == "cuda",
            mixed_precision=os.environ.get("ACCELERATE_MIXED_PRECISION", "no"),
        )
        found = estimate(run, memory)
        is_close = found.total > CLOSE * memory
        remedy = describe_alternatives(alternatives(run, memory)) if is_close else ""
    except Exception as error:  # a model that cannot be estimated must not stop a training run
        logger.warning("memory: not estimated (%s)", error)
        return
    if in_full:
        show(found, memory, Console(highlight=False, soft_wrap=True, emoji=False))
    if found.least > memory:
        needs = f"needs {_gib(found.least)} GiB for weights, gradients and optimizer states alone"
        rule = f"{needs}, but {_gib(memory)} GiB are available"
        raise ArgumentError("model_name_or_path", rule=rule, hint=remedy)
    if is_close:
        logger.warning("memory: %s; %s", describe(found, memory), remedy)
    elif not in_full:
        logger.info("memory: %s", describe(found, memory))


def device_memory(training_args: Any) -> int:
    """Return the free bytes of the GPU, or of the machine divided by its processes."""
    if training_args.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(training_args.device)[0])
    import psutil  # type: ignore[import-untyped]

    return int(psutil.virtual_memory().available) // int(os.environ.get("LOCAL_WORLD_SIZE", training_args.world_size))


def _parallelism_of(training_args: Any) -> Parallelism:
    processes, plugin = training_args.world_size, training_args.deepspeed_plugin
    if plugin is not None:
        zero = plugin.deepspeed_config.get("zero_optimization", {})
        return read_zero({**zero, "stage": plugin.zero_stage}, processes)
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        fsdp = {name.removeprefix("FSDP_").lower(): value for name, value in os.environ.items()}
        return read_fsdp(fsdp, processes)
    return read_parallelism({}, processes)


def _longest_sample(kind: str, training_args: Any, model_args: Any, rows: Iterable[Mapping[str, Any]]) -> int:
    """Return the tokens of the longest of the first rows (GRPO: of their prompts), with a chat template."""
    from transformers import AutoTokenizer

    texts: dict[str, list[tuple[str, ...]]] = {"grpo": [("prompt",)]}
    texts["dpo"] = [("prompt", "chosen"), ("prompt", "rejected")]
    samples = ([row.get(n) for n in names] for row in islice(rows, ROWS) for names in texts.get(kind, [tuple(row)]))
    longest = max(("\n".join(_texts(sample)) for sample in samples), key=len, default="")
    name, revision = model_args.model_name_or_path, model_args.model_revision
    trusts = training_args.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trusts)
    return len(tokenizer(longest)["input_ids"]) + TEMPLATE_TOKENS


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def show(found: Estimate, device_bytes: int | None, console: Console) -> None:
    """Print a table of all parts at each point, the verdict and the assumptions."""
    run = found.run
    console.print(
        f"[bold]Estimated memory per process[/], {run.kind} of {run.model} ({run.parallelism}, {run.batch} x "
        f"{run.length} tokens, {run.shape.parameters:,} parameters, {found.trained:,} of them trained)"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("GiB")
    for name in found.breakdown:
        table.add_column(name, justify="right")
    for part in dict.fromkeys(name for parts in found.breakdown.values() for name in parts):
        table.add_row(part, *(_gib(parts[part]) if part in parts else "-" for parts in found.breakdown.values()))
    table.add_row("total", *(_gib(sum(parts.values())) for parts in found.breakdown.values()), style="bold")
    console.print(table)
    console.print(describe(found, device_bytes))
    for assumption in ASSUMPTIONS if run.on_gpu else ASSUMPTIONS[:-1]:
        console.print(f"- assumed: {assumption}", style="dim")


def describe(found: Estimate, device_bytes: int | None) -> str:
    """Compare an estimate with the memory of the device in a clause."""
    if device_bytes is None:
        return f"about {_gib(found.total)} GiB at the {found.peak}; pass `--gpu-memory 80GB` to see whether it fits"
    share = found.total / device_bytes
    verdict = "it will not fit" if share > 1 else "it may not fit" if share > CLOSE else "it fits"
    return f"about {_gib(found.total)} of {_gib(device_bytes)} GiB at the {found.peak}: {verdict}"


def describe_alternatives(fitting: Mapping[str, Estimate]) -> str:
    """List changes that fit in a clause."""
    if not fitting:
        return "no change that was tried fits: use a smaller model, larger GPUs, or more of them"
    return "this would: " + "; or ".join(f"{text} ({_gib(after.total)} GiB)" for text, after in fitting.items())


def as_dict(found: Estimate, device_bytes: int | None, fitting: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return an estimate as plain values, in bytes, for JSON."""
    return {
        "total": found.total,
        "peak": found.peak,
        "parameters": found.run.shape.parameters,
        "trained": found.trained,
        "breakdown": found.breakdown,
        "device": device_bytes,
        "fits": None if device_bytes is None else found.total <= device_bytes,
        "alternatives": [{"change": text, "total": after.total} for text, after in fitting.items()],
        "assumptions": list(ASSUMPTIONS),
    }


def _gib(size: float) -> str:
    return f"{size / GIB:.3g}" if size < 10 * GIB else f"{size / GIB:.1f}"
