"""Reads what the memory of a run depends on from a recipe's arguments, the model's config and the Accelerate config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_sched.plan.launch import find_world_size, read_accelerate_config
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder-only transformer with gated MLPs."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    query: int  # width of all heads together
    key_value: int
    vocabulary: int
    tied: bool  # whether the output head is the embedding matrix
    qkv_bias: bool = False

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read the sizes from a transformers config.

        Raises:
            ArgumentError: The architecture is not one that the estimate knows.
        """
        text = config.get_text_config()
        if not getattr(text, "intermediate_size", None) or getattr(text, "num_experts_per_tok", None):
            raise ArgumentError("model_name_or_path", "a dense model with gated MLPs, such as Llama", text.model_type)
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            heads=text.num_attention_heads,
            query=text.num_attention_heads * head,
            key_value=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * head,
            vocabulary=text.vocab_size,
            tied=bool(config.tie_word_embeddings),
            qkv_bias=bool(getattr(text, "attention_bias", text.model_type == "qwen2")),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of the linear maps of a layer, by their names in transformers."""
        h, i, q, kv = self.hidden, self.intermediate, self.query, self.key_value
        mlp = {"gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}
        return {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h), **mlp}

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear maps of all layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def embedding(self) -> int:
        """Weights of the embedding matrix."""
        return self.vocabulary * self.hidden

    @property
    def outside_layers(self) -> int:
        """Parameters that belong to no layer."""
        return self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        vectors = 2 * self.hidden + (self.query + 2 * self.key_value) * self.qkv_bias
        return self.linear_parameters + self.layers * vectors + self.outside_layers


@dataclass(frozen=True)
class Lora:
    """An adapter."""

    r: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """`("all-linear",)` for all linear maps but the output head."""

    def adapted(self, shape: Shape) -> dict[str, tuple[int, int]]:
        """Return the linear maps of a layer that have an adapter."""
        is_target = {name: any(target.endswith(name) for target in self.targets) for name in shape.linears}
        return {name: size for name, size in shape.linears.items() if is_target[name] or "all-linear" in self.targets}


@dataclass(frozen=True)
class Parallelism:
    """How a run is distributed over processes."""

    kind: str = "one process"  # `one process`, `DDP`, `ZeRO-1`, `ZeRO-2`, `ZeRO-3` or `FSDP2`
    processes: int = 1
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    reshards: bool = True  # FSDP2: whether a layer's weights are freed after its forward pass

    @property
    def is_sharded(self) -> bool:
        """Whether the optimizer states are sharded."""
        return self.kind.startswith(("ZeRO", "FSDP"))

    @property
    def shards_weights(self) -> bool:
        """Whether the weights are sharded."""
        return self.kind in ("ZeRO-3", "FSDP2")

    def __str__(self) -> str:
        return self.kind if self.processes == 1 else f"{self.kind} with {self.processes} processes"


@dataclass(frozen=True)
class Run:
    """What the memory of a run depends on."""

    kind: str
    model: str
    shape: Shape
    batch: int  # sequences per forward pass on a process; DPO has two per row
    length: int  # tokens of the longest sequence, prompt and completion together
    parallelism: Parallelism = field(default_factory=Parallelism)
    accumulation: int = 1
    checkpointing: bool = True
    optim: str = "adamw_torch_fused"
    weight_bytes: int = 4  # bytes per weight as loaded
    is_mixed: bool = False  # whether it computes in bf16 or fp16
    is_eager: bool = False  # whether attention keeps its scores
    is_padded: bool = True  # whether attention takes a mask, as for rows of different lengths
    liger: bool = False
    full_logits: bool = False
    """Whether the trainer computes the logits of all tokens at once (TRL before its fused output head)."""
    lora: Lora | None = None
    bits: int = 0  # 4 or 8 for a quantized model
    reference: bool = False  # whether a second, frozen model is loaded (GRPO with `beta`, DPO)
    completion: int = 0  # tokens of the longest completion that GRPO generates
    generated: int = 0  # completions that the trainer's own model generates at once
    vllm_share: float = 0.0  # share of the GPU that a colocated vLLM takes
    vllm_sleeps: bool = False
    on_gpu: bool = True


def read_run(
    kind: str,
    get: Callable[[str], Any],
    model_args: Any,
    parallelism: Parallelism,
    *,
    length: int | None = None,
    prompt: int = 512,
    on_gpu: bool = True,
    mixed_precision: str = "no",
) -> Run:
    """Read a run from a recipe's arguments.

    Args:
        kind: `sft`, `grpo` or `dpo`.
        get: Returns a training argument by name, None if it does not exist.
        model_args: TRL's ModelConfig.
        parallelism: How the run is distributed.
        length: Tokens of the longest sample (SFT, DPO); `max_length` by default.
        prompt: Tokens of the longest prompt (GRPO).
        on_gpu: Whether the run uses a GPU.
        mixed_precision: Accelerate's setting.

    Raises:
        ArgumentError: An argument is missing or wrong, or the architecture is unknown.
    """
    from transformers import AutoConfig
    from trl.trainer import utils as trl_utils

    name, trusts = model_args.model_name_or_path, bool(get("trust_remote_code"))
    try:
        if not name:
            raise OSError("it is missing")
        config = AutoConfig.from_pretrained(name, revision=model_args.model_revision, trust_remote_code=trusts)
    except OSError as error:
        hint = " ".join(str(error).split())
        raise ArgumentError("model_name_or_path", "a hub name or the folder of a model", name, hint) from error
    init = {"attn_implementation": model_args.attn_implementation, "dtype": model_args.dtype}
    init |= get("model_init_kwargs") or {}
    dtype = str(getattr(config, "dtype", "") if init["dtype"] in (None, "auto") else init["dtype"])
    activation = get("activation_checkpointing")  # the name in newer versions of transformers
    batch, fp16, bf16 = int(get("per_device_train_batch_size")), bool(get("fp16")), get("bf16")
    bf16 = not fp16 if bf16 is None else bool(bf16)  # TRL's default
    targets = model_args.lora_target_modules or Lora.targets
    targets = (targets,) if isinstance(targets, str) else tuple(targets)
    lora = Lora(model_args.lora_r, model_args.lora_dropout, targets) if model_args.use_peft else None
    common: dict[str, Any] = {
        "kind": kind,
        "model": name,
        "shape": Shape.of(config),
        "batch": 2 * batch if kind == "dpo" else batch,
        "parallelism": parallelism,
        "accumulation": int(get("gradient_accumulation_steps")),
        "checkpointing": bool(get("gradient_checkpointing") if activation is None else activation),
        "optim": str(getattr(get("optim"), "value", get("optim"))),
        "weight_bytes": 2 if dtype.endswith("16") else 4,
        "is_mixed": fp16 or bf16 or mixed_precision in ("bf16", "fp16"),
        "is_eager": init["attn_implementation"] == "eager",
        "is_padded": batch > 1 and "flash" not in (init["attn_implementation"] or ""),
        "liger": bool(get("use_liger_kernel")),
        "full_logits": not hasattr(trl_utils, "add_fused_lm_head") and not get("use_liger_kernel"),
        "lora": lora,
        "bits": 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else 0,
        "on_gpu": on_gpu,
    }
    if kind != "grpo":
        limit = get("max_length")
        longest = limit if length is None or get("packing") else min(length, limit or length)
        if longest is None:
            raise ArgumentError("max_length", "a number of tokens", None, hint="or pass `--length N`")
        return Run(**common, length=int(longest), reference=kind == "dpo" and not lora)
    completion, vllm = int(get("max_completion_length")), bool(get("use_vllm"))
    steps = get("steps_per_generation") or get("gradient_accumulation_steps")
    if size := get("generation_batch_size"):
        steps = int(size) // (batch * parallelism.processes)
    is_colocated = vllm and get("vllm_mode") == "colocate"
    return Run(
        **common,
        length=prompt + completion,
        completion=completion,
        generated=0 if vllm else batch * int(steps),
        reference=bool(get("beta")) and not lora,
        vllm_share=float(get("vllm_gpu_memory_utilization")) if is_colocated else 0.0,
        vllm_sleeps=is_colocated and bool(get("vllm_enable_sleep_mode")),
    )


def read_config(
    path: Path,
    kind: str | None = None,
    *,
    accelerate_config: str | None = None,
    num_processes: int | None = None,
    length: int | None = None,
    prompt: int = 512,
) -> Run:
    """Read a run from a recipe's YAML file and an Accelerate config. Other arguments are those of `read_run`."""
    from trl import ModelConfig

    config = TrainingConfig.read(path, kind)
    if config.kind not in ("sft", "grpo", "dpo"):
        raise ArgumentError("kind", "sft, grpo or dpo", config.kind)
    launch = read_accelerate_config(config, accelerate_config) or {}
    processes = find_world_size(config, num_processes, accelerate_config).processes
    known = {one.name for one in dataclasses.fields(ModelConfig)}
    return read_run(
        config.kind,
        config.get,
        ModelConfig(**{name: value for name, value in config.given.items() if name in known}),
        read_parallelism(launch, processes, Path(accelerate_config or "").parent),
        length=length,
        prompt=prompt,
        on_gpu=not config.get("use_cpu"),
        mixed_precision=str(launch.get("mixed_precision")),
    )


def read_parallelism(launch: Mapping[str, Any], processes: int, folder: Path = Path()) -> Parallelism:
    """Read an Accelerate config, empty for a launch without one; `folder` holds its DeepSpeed file.

    Raises:
        ArgumentError: A DeepSpeed file is missing, or the estimate does not support the setting.
    """
    kind = str(launch.get("distributed_type", "NO"))
    if kind == "DEEPSPEED":
        config = dict(launch.get("deepspeed_config") or {})
        zero = {f"offload_{part}": {"device": config.get(f"offload_{part}_device")} for part in ("optimizer", "param")}
        zero["stage"] = config.get("zero_stage", 2)
        if name := config.get("deepspeed_config_file"):
            file = next((file for file in (Path(name), folder / name) if file.is_file()), None)
            if file is None:
                raise ArgumentError("deepspeed_config_file", "a JSON file that exists", name)
            zero = json.loads(file.read_text(encoding="utf-8")).get("zero_optimization", {})
        return read_zero(zero, processes)
    if kind == "FSDP":
        return read_fsdp({k.removeprefix("fsdp_"): v for k, v in launch["fsdp_config"].items()}, processes)
    if kind not in ("NO", "MULTI_GPU", "MULTI_CPU"):
        raise ArgumentError("distributed_type", "NO, MULTI_GPU, FSDP or DEEPSPEED", kind)
    return Parallelism("DDP" if processes > 1 else "one process", processes)


def read_zero(zero: Mapping[str, Any], processes: int) -> Parallelism:
    """Read DeepSpeed's `zero_optimization`."""
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ArgumentError("zero_stage", "0, 1, 2 or 3", stage)
    devices = [str((zero.get(f"offload_{part}") or {}).get("device")) for part in ("optimizer", "param")]
    offloads = [device.lower() != "none" for device in devices]
    return Parallelism(f"ZeRO-{stage}" if stage else "DDP", processes, *offloads)


def read_fsdp(config: Mapping[str, Any], processes: int) -> Parallelism:
    """Read Accelerate's `fsdp_config`, without the prefix of its keys."""
    if str(config.get("version", 1)) != "2":
        raise ArgumentError("fsdp_version", "2, because FSDP1 is not estimated", config.get("version", 1))
    is_on = {name: str(value).lower() in ("true", "1", "full_shard") for name, value in config.items()}
    offloads = is_on.get("offload_params", False)
    return Parallelism("FSDP2", processes, offloads, offloads, is_on.get("reshard_after_forward", True))
