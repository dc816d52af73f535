"""Before the model is loaded: whether the run fits into the memory of its GPU, by the estimate of footprint/."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from rich.console import Console
from transformers import AutoTokenizer


def check_memory(
    kind: str, training_args: Any, model_args: Any, rows: Iterable[dict[str, Any]], *, in_full: bool
) -> None:
    """Say what a run needs and has, once on each machine with a GPU; to be called before the model is loaded.

    Args:
        kind: `sft` or `grpo`.
        training_args: The recipe's.
        model_args: TRL's ModelConfig.
        rows: The training data.
        in_full: Whether to show the table, on a CPU too, or a line.

    Raises:
        ValueError: Not even the weights and the optimizer fit. A run that may fit is warned of, and goes on.
    """
    on_gpu = training_args.device.type == "cuda"
    # On a CPU, where a run takes what the machine has, it would cost each of many small ones its second or two.
    if training_args.local_process_index != 0 or not (on_gpu or (in_full and training_args.device.type == "cpu")):
        return
    from hf_sched.finetune.memory import (  # not above: what a run on a CPU has no use for shall cost it nothing
        GIB,
        estimate,
        least,
    )
    from hf_sched.finetune.memory.alternatives import alternatives
    from hf_sched.finetune.memory.fake_model import unsharded
    from hf_sched.finetune.memory.show import CLOSE, in_a_line, show_table, what_fits

    out = Console(highlight=False, soft_wrap=True, emoji=False)
    device_bytes, device = _memory_here(training_args)
    try:
        # The random numbers of the run are those that they would be without it.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), unsharded():
            warnings.simplefilter("ignore")
            settings = _settings_of_run(kind, training_args, model_args, rows)
            found = estimate(settings, device_bytes)
            is_close = found.total > CLOSE * device_bytes
            fits = what_fits(alternatives(settings, device_bytes)) if is_close else ""
            needed = least(settings.but(on_gpu=False), device_bytes)  # without what is only assumed of a GPU
    # Whatever a model does that cannot be estimated, it is no reason to stop a training.
    except Exception as error:
        out.print(f"memory: not estimated ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})")
        return
    if in_full:
        show_table(found, device_bytes, out)
    else:
        out.print(in_a_line(found, device_bytes, device))
    if needed > device_bytes:
        raise ValueError(
            f"weights, gradients and optimizer alone take {needed / GIB:.1f} GiB of the {device_bytes / GIB:.1f} "
            f"there are: it cannot fit, however small the batch; {fits}"
        )
    if is_close:
        will = "will" if found.total > device_bytes else "may"
        out.print(f"[bold yellow]warning[/] by this estimate it {will} not fit; {fits}")


def _memory_here(training_args: Any) -> tuple[int, str]:
    if training_args.device.type == "cuda":
        return torch.cuda.mem_get_info(training_args.device)[0], "free on the GPU"
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", training_args.world_size))
    return psutil.virtual_memory().available // beside, "available to the process"


def _settings_of_run(kind: str, training_args: Any, model_args: Any, rows: Iterable[dict[str, Any]]) -> Any:
    from hf_sched.finetune.memory.lengths import longest_sample
    from hf_sched.finetune.memory.settings import read_settings
    from hf_sched.finetune.memory.spread import spread_of_run

    tokenizer = AutoTokenizer.from_pretrained(
        model_args.model_name_or_path,
        revision=model_args.model_revision,
        trust_remote_code=training_args.trust_remote_code,
    )
    longest = longest_sample(rows, tokenizer, ("prompt",) if kind == "grpo" else None)
    return read_settings(
        kind,
        lambda name: getattr(training_args, name, None),
        model_args,
        spread_of_run(training_args),
        length=longest,
        prompt=longest,
        on_gpu=training_args.device.type == "cuda",
    )
