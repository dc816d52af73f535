"""Chooses what makes a run fast on this machine, and changes nothing that it learns (`fast: true`).

Chosen are the attention, batches without padding, Liger's kernels and vLLM, by what is installed, and the number of
sequences per forward pass, by the memory of the GPU. The samples of an optimizer step stay the same. Arguments that are
given are kept, except that `per_device_train_batch_size` and `gradient_accumulation_steps` may be exchanged for others
with the same product.

transformers' continuous batching is not chosen: TRL casts the weights for it, so that training continues in bfloat16,
in which updates at the usual learning rates of GRPO round to nothing. TF32 is not chosen either: under bf16 the only
matrix products that are left in float32 are the angles of RoPE, which need the precision.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import gcd
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_liger_kernel_available

from hf_sched.finetune.memory.before_loading import CLOSE, read_arguments
from hf_sched.finetune.memory.estimate import estimate
from hf_sched.finetune.memory.run_settings import Run

logger = logging.getLogger(__name__)

CHECKPOINTING = {"activation_checkpointing", "gradient_checkpointing"}
FEWEST = 8
"""Sequences per forward pass from which on gradient checkpointing is assumed not to be worth its cost."""


@dataclass(frozen=True)
class Machine:
    """What a GPU and the installed packages offer."""

    memory: int | None = None
    """Bytes of the GPU, whether free or not, so that a resume makes the same choice; None for a CPU."""
    attention: str = "sdpa"
    has_liger: bool = False
    has_vllm: bool = False

    @classmethod
    def find(cls, device: torch.device) -> Machine:
        """Look at a device and the packages."""
        if device.type != "cuda":
            return cls()
        attention = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
        if is_flash_attn_3_available() and torch.cuda.get_device_capability(device)[0] == 9:
            attention = "flash_attention_3"
        memory = torch.cuda.mem_get_info(device)[1]
        return cls(memory, attention, is_liger_kernel_available(), find_spec("vllm") is not None)


def make_fast(
    kind: str, training: Any, model: Any, rows: Iterable[Mapping[str, Any]], given: Mapping[str, Any]
) -> None:
    """Change the arguments of a run for this machine, and log what was chosen.

    Args:
        kind: `sft`, `grpo` or `dpo`.
        training: Arguments of the trainer.
        model: TRL's `ModelConfig`.
        rows: The training data, whose lengths are measured.
        given: The arguments that the user wrote.
    """
    machine = Machine.find(training.device)
    texts = _choose_installed(kind, training, model, given, machine)
    # DeepSpeed's configuration already contains the batch.
    if machine.memory is not None and training.deepspeed_plugin is None:
        try:
            run = read_arguments(kind, training, model, rows)
            fitting = largest_batch(run, machine.memory, decides_checkpointing=not CHECKPOINTING & {*given})
        except Exception:  # `check_memory` says why the model cannot be estimated
            fitting = None
        if fitting is not None:
            texts.append(_apply_batch(training, fitting))
    logger.info("fast: %s", "; ".join(texts))


def _choose_installed(kind: str, training: Any, model: Any, given: Mapping[str, Any], machine: Machine) -> list[str]:
    # The recipes stop at the first gradient that is not finite, so a check of every loss, which waits for the GPU,
    # is of no use; except under fp16, whose gradient scaler continues after such a gradient.
    chosen = {"use_liger_kernel": machine.has_liger, "logging_nan_inf_filter": training.fp16}
    if kind == "grpo" and not getattr(training, "use_transformers_continuous_batching", False):
        chosen["use_vllm"] = machine.has_vllm
    for name, value in chosen.items():
        if name not in given:
            setattr(training, name, value)
    if "attn_implementation" not in given:
        has_half = training.bf16 or training.fp16 or str(model.dtype).endswith("16")
        model.attn_implementation = machine.attention if has_half else "sdpa"
    texts = [f"{model.attn_implementation} attention"]
    if _needs_no_padding(kind, training, model.attn_implementation):
        texts.append("batches without padding")
    texts.append(f"{'with' if training.use_liger_kernel else 'without'} Liger's kernels")
    return [*texts, f"generation by {'vLLM' if training.use_vllm else 'transformers'}"] if kind == "grpo" else texts


def largest_batch(run: Run, memory: int, *, decides_checkpointing: bool = True) -> Run | None:
    """Find the largest batch that fits and keeps the samples per optimizer step.

    Without gradient checkpointing if at least `FEWEST` sequences fit; unless that is not to be decided.

    Args:
        run: What the memory depends on.
        memory: Bytes of the GPU.
        decides_checkpointing: Whether `gradient_checkpointing` may be changed.

    Returns:
        The changed run; None if no batch fits.
    """
    samples = run.per_device_train_batch_size * run.gradient_accumulation_steps
    most = gcd(samples, run.generated) if run.kind == "grpo" else samples
    batches = [rows for rows in range(most, 0, -1) if most % rows == 0]
    large = [rows for rows in batches if rows >= min(FEWEST, most)]
    choices = [(False, large), (True, batches)] if decides_checkpointing else [(run.gradient_checkpointing, batches)]
    for checkpointing, rows in ((value, rows) for value, several in choices for rows in several):
        changed = replace(
            run,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=samples // rows,
            gradient_checkpointing=checkpointing,
        )
        if estimate(changed, memory).total <= CLOSE * memory:
            return changed
    return None


def _apply_batch(training: Any, fitting: Run) -> str:
    rows, steps = fitting.per_device_train_batch_size, fitting.gradient_accumulation_steps
    if fitting.kind == "grpo":  # a generation has as many completions as before
        training.steps_per_generation = training.steps_per_generation * training.per_device_train_batch_size // rows
    training.per_device_train_batch_size, training.gradient_accumulation_steps = rows, steps
    for name in CHECKPOINTING & {*vars(training)}:
        setattr(training, name, fitting.gradient_checkpointing)
    checkpointing = "with" if fitting.gradient_checkpointing else "without"
    return f"{rows} sequences x {steps} forward passes per step, {checkpointing} gradient checkpointing"


def drop_padding(trainer: Any, attention: str | None) -> None:
    """Concatenate the rows of a batch of SFT instead of padding them, if the attention keeps them apart.

    TRL accepts `padding_free: true` only with `max_length: null`, but here it has already truncated the rows. The
    effective batch stays the same, unlike with `packing: true`.
    """
    if _needs_no_padding("sft", trainer.args, attention) and hasattr(trainer.data_collator, "padding_free"):
        trainer.padding_free = trainer.data_collator.padding_free = True


def _needs_no_padding(kind: str, training: Any, attention: str | None) -> bool:
    return kind == "sft" and str(attention).startswith("flash_attention") and not training.packing
