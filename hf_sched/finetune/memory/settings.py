"""All that an estimate depends on, read from a recipe's arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hf_sched.finetune.memory.spread import Spread


@dataclass(frozen=True)
class Lora:
    """The arguments of TRL's ModelConfig that decide on the adapter's size."""

    r: int = 16
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None
    use_dora: bool = False


@dataclass(frozen=True)
class Settings:
    """A run, as far as its memory depends on it."""

    kind: str
    """`sft` or `grpo`."""
    model: str
    batch: int
    """Rows of a batch on a process."""
    length: int
    """Tokens of the longest row: of a prompt and its completion together."""
    spread: Spread = field(default_factory=Spread)
    accumulation: int = 1
    checkpointing: bool = True
    optim: str = "adamw_torch_fused"
    dtype: str = "float32"
    """That the model is loaded in; `auto` is that of its file."""
    mixed: str = "no"
    """The type of autocast: `no`, `bf16` or `fp16`."""
    attention: str | None = None
    packed: bool = False
    """Whether all rows of a batch are one long row without padding."""
    lora: Lora | None = None
    bits: int = 0
    """Of the frozen weights of a quantized model: 4 or 8; 0 for one that is not."""
    nested: bool = False
    """Whether the constants of 4-bit weights are quantized themselves."""
    reference: bool = False
    """Whether a second model stands by (GRPO with `beta` above 0)."""
    completion: int = 0
    """Tokens of the longest completion that is generated, of `length`."""
    generated: int = 0
    """Completions that a process generates at once; 0 where it does not, or vLLM does."""
    vllm_share: float = 0.0
    """The share of a GPU that a colocated vLLM takes."""
    vllm_sleeps: bool = False
    on_gpu: bool = True
    revision: str = "main"
    trust_remote_code: bool = False

    def but(self, **changes: Any) -> Settings:
        """The same with changes."""
        return dataclasses.replace(self, **changes)

    def as_built(self) -> Settings:
        """What decides on the model and on a pass through it: runs that differ in the rest share a trace."""
        kind = "one process"
        if self.spread.shards_optimizer:
            kind = "ZeRO-3" if self.spread.kind == "ZeRO-3" and self.lora else "ZeRO-2"
        return self.but(
            spread=Spread(kind), accumulation=1, optim="", reference=False, vllm_share=0.0, vllm_sleeps=False
        )


def read_settings(
    kind: str,
    get: Callable[[str], Any],
    model_args: Any,
    spread: Spread,
    *,
    length: int | None,
    prompt: int,
    on_gpu: bool,
) -> Settings:
    """Those of a recipe.

    Args:
        kind: `sft` or `grpo`.
        get: Gives a training argument by its name, None where there is none.
        model_args: TRL's ModelConfig.
        spread: How it is launched.
        length: Tokens of the longest sample (SFT); None for `max_length`.
        prompt: Tokens of the longest prompt (GRPO).
        on_gpu: Whether it trains on GPUs.

    Raises:
        ValueError: The length of a sample has no bound.
    """
    if not model_args.model_name_or_path:
        raise ValueError(
            "`model_name_or_path` must be a folder or a hub name, received None: write it in the YAML file"
        )
    batch, accumulation = int(get("per_device_train_batch_size")), int(get("gradient_accumulation_steps"))
    fp16, bf16 = bool(get("fp16")), get("bf16")
    bf16 = not fp16 if bf16 is None else bool(bf16)  # TRL's rule
    init = get("model_init_kwargs") or {}
    common = {
        "kind": kind,
        "model": model_args.model_name_or_path,
        "batch": batch,
        "spread": spread,
        "accumulation": accumulation,
        "checkpointing": bool(get("gradient_checkpointing")),
        "optim": str(getattr(get("optim"), "value", get("optim"))),
        "dtype": str(init.get("dtype", model_args.dtype) or "auto").removeprefix("torch."),
        "mixed": "bf16" if bf16 else "fp16" if fp16 else spread.mixed_precision,
        "attention": init.get("attn_implementation", model_args.attn_implementation),
        "lora": _lora(model_args),
        "bits": 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else 0,
        "nested": bool(model_args.use_bnb_nested_quant),
        "on_gpu": on_gpu,
        "revision": model_args.model_revision,
        "trust_remote_code": bool(get("trust_remote_code")),
    }
    return Settings(**common, **(_grpo(get, prompt, spread) if kind == "grpo" else _sft(get, length)))


def _sft(get: Callable[[str], Any], length: int | None) -> dict[str, Any]:
    packing = bool(get("packing"))
    bound = get("max_length")
    longest = bound if packing or length is None else length if bound is None else min(length, bound)
    if longest is None:
        raise ValueError("`max_length` must be a number of tokens, received None: write it, or give `--length N`")
    packed = bool(get("padding_free")) or (packing and get("packing_strategy") != "wrapped")
    return {"length": int(longest), "packed": packed}


def _grpo(get: Callable[[str], Any], prompt: int, spread: Spread) -> dict[str, Any]:
    batch, completion = int(get("per_device_train_batch_size")), int(get("max_completion_length"))
    steps = get("steps_per_generation") or int(get("gradient_accumulation_steps"))
    if size := get("generation_batch_size"):
        steps = int(size) // (batch * spread.processes)
    vllm = bool(get("use_vllm"))
    colocated = vllm and get("vllm_mode") == "colocate"
    return {
        "length": prompt + completion,
        "completion": completion,
        "generated": 0 if vllm else batch * int(steps),
        "reference": bool(get("beta")),
        "vllm_share": float(get("vllm_gpu_memory_utilization")) if colocated else 0.0,
        "vllm_sleeps": bool(get("vllm_enable_sleep_mode")),
    }


def _lora(model_args: Any) -> Lora | None:
    if not model_args.use_peft:
        return None
    targets, saved = model_args.lora_target_modules, model_args.lora_modules_to_save
    return Lora(
        r=model_args.lora_r,
        dropout=model_args.lora_dropout,
        target_modules=tuple(targets) if isinstance(targets, list) else targets,
        modules_to_save=tuple(saved) if saved else None,
        use_dora=model_args.use_dora,
    )
