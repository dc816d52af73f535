"""Reads what the memory of a run depends on: the recipe's arguments, the model's config and the Accelerate config."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from hf_sched.plan.processes import find_file, find_world_size, read_accelerate_config
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder-only transformer with gated MLPs, and its numbers of parameters."""

    layers: int
    hidden: int
    intermediate: int
    query: int  # width of all heads together
    key_value: int
    vocabulary: int
    tied: bool  # whether the output head is the embedding matrix
    parameters: int
    outside_layers: int  # parameters that belong to no layer
    linears: Mapping[str, tuple[int, int]]  # input and output width of the linear maps of a layer, by their names

    @classmethod
    def of(cls, config: Any, **given: Any) -> Shape:
        """Read the sizes from a model without weights, made from a transformers config and other arguments.

        Raises:
            ArgumentError: The architecture is not one that the estimate knows.
        """
        text = config.get_text_config()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, **given)
        layers: Any = getattr(model.get_decoder(), "layers", [model])
        maps = {name: one for name, one in layers[0].named_modules() if isinstance(one, torch.nn.Linear)}
        widths = {name.rpartition(".")[2]: (one.in_features, one.out_features) for name, one in maps.items()}
        if not {"q_proj", "k_proj", "gate_proj"} <= set(widths) or hasattr(text, "num_experts_per_tok"):
            raise ArgumentError("model_name_or_path", "a dense model with gated MLPs, such as Llama", text.model_type)
        query, key_value, parameters = widths["q_proj"][1], widths["k_proj"][1], model.num_parameters()
        outside = parameters - sum(one.numel() for one in layers.parameters())
        sizes = (len(layers), text.hidden_size, text.intermediate_size, query, key_value, text.vocab_size)
        return cls(*sizes, config.tie_word_embeddings, parameters, outside, widths)

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear maps of all layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def embedding(self) -> int:
        """Weights of the embedding matrix."""
        return self.vocabulary * self.hidden


@dataclass(frozen=True)
class Run:
    """What the memory of a run depends on. Arguments of the trainer and the model have their names in TRL."""

    kind: str
    shape: Shape
    model_name_or_path: str = ""
    parallelism: str = "one process"  # `one process`, `DDP`, `ZeRO-1`, `ZeRO-2`, `ZeRO-3` or `FSDP2`
    processes: int = 1
    full_logits: bool = False  # whether all logits exist at once, as in TRL before its fused output head
    prompt: int = 0  # tokens of the longest prompt (GRPO)
    generated: int = 0  # completions generated at once on a process (GRPO)
    max_length: int = 0  # tokens of the longest sequence (SFT, DPO)
    max_completion_length: int = 0
    per_device_train_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = True
    optim: str = "adamw_torch_fused"
    dtype: str = "float32"
    bf16: bool = False  # or fp16
    use_cpu: bool = False
    use_liger_kernel: bool = False
    use_peft: bool = False
    lora_r: int = 16
    lora_target_modules: str | list[str] | tuple[str, ...] = ("q_proj", "v_proj")
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    beta: float = 0.0
    use_vllm: bool = False
    vllm_mode: str = "colocate"
    vllm_gpu_memory_utilization: float = 0.3
    vllm_enable_sleep_mode: bool = False

    @property
    def batch(self) -> int:
        """Sequences per forward pass on a process: DPO has two per row."""
        return self.per_device_train_batch_size * (2 if self.kind == "dpo" else 1)

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, prompt and completion together."""
        return self.prompt + self.max_completion_length if self.kind == "grpo" else self.max_length

    @property
    def adapted(self) -> list[tuple[int, int]]:
        """Input and output width of the linear maps of a layer that have an adapter."""
        given, linears = self.lora_target_modules, self.shape.linears
        targets = [*linears] if given == "all-linear" else [given] if isinstance(given, str) else given
        return [size for name, size in linears.items() if any(target.endswith(name) for target in targets)]


def read_run(
    kind: str, get: Callable[[str], Any], launch: Mapping[str, Any], processes: int, length: int | None, prompt: int
) -> Run:
    """Read a run from a recipe's arguments.

    `get` returns an argument of the trainer or the model by name, None if it does not exist; `launch` is the Accelerate
    config, empty without one; `length` is that of the longest sample (SFT, DPO; None for `max_length`) and `prompt`
    that of the longest prompt (GRPO), in tokens.

    Raises:
        ArgumentError: An argument is missing or wrong, or the architecture is unknown.
    """
    from trl.trainer import utils as trl_utils

    name, trusts = get("model_name_or_path"), bool(get("trust_remote_code"))
    try:
        config = AutoConfig.from_pretrained(str(name), revision=get("model_revision"), trust_remote_code=trusts)
    except OSError as error:
        hint = " ".join(str(error).split())
        raise ArgumentError("model_name_or_path", "a hub name or the folder of a model", name, hint) from error
    given = {field.name: get(field.name) for field in fields(Run)}
    given |= {"kind": kind, "processes": processes, **read_parallelism(launch, processes)}
    given["shape"] = Shape.of(config, trust_remote_code=trusts)
    given["full_logits"] = not hasattr(trl_utils, "add_fused_lm_head") and not given["use_liger_kernel"]
    given["optim"] = str(getattr(given["optim"], "value", given["optim"]))
    dtype = (get("model_init_kwargs") or {}).get("dtype", given["dtype"])
    given["dtype"] = str(getattr(config, "dtype", "") if dtype in (None, "auto") else dtype)
    given["bf16"] = given["bf16"] in (True, None) or get("fp16") or launch.get("mixed_precision") in ("bf16", "fp16")
    if (activation := get("activation_checkpointing")) is not None:  # the name in newer versions of transformers
        given["gradient_checkpointing"] = activation
    if kind == "grpo":
        steps = get("steps_per_generation") or given["gradient_accumulation_steps"]
        whole = get("generation_batch_size") or given["per_device_train_batch_size"] * processes * steps
        given |= {"prompt": prompt, "generated": whole // processes}
    elif length is not None and not get("packing"):
        given["max_length"] = min(length, given["max_length"] or length)
    elif given["max_length"] is None:
        raise ArgumentError("max_length", "a number of tokens", None, hint="or pass `--length N`")
    return Run(**{name: value for name, value in given.items() if value is not None})


def read_config(
    path: str,
    kind: str | None = None,
    *,
    accelerate_config: str | None = None,
    num_processes: int | None = None,
    length: int | None = None,
    prompt: int = 512,
) -> Run:
    """Read a run from a recipe's YAML file and an Accelerate config. Other arguments are those of `read_run`."""
    config = TrainingConfig.read(path, kind)
    launch = dict(read_accelerate_config(config, accelerate_config) or {})
    processes = find_world_size(config, num_processes, accelerate_config).processes
    deepspeed = launch.get("deepspeed_config") or {}
    if name := deepspeed.get("deepspeed_config_file"):
        if (file := find_file(name, accelerate_config or path)) is None:
            raise ArgumentError("deepspeed_config_file", "a JSON file that exists", name)
        launch["deepspeed_config"] = json.loads(file.read_text(encoding="utf-8"))
    return read_run(config.kind, config.get, launch, processes, length, prompt)


def read_parallelism(launch: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Read how an Accelerate config distributes a run, as fields of `Run`.

    `deepspeed_config` has Accelerate's flat keys or is a DeepSpeed configuration.

    Raises:
        ArgumentError: FSDP1 and offloading are not estimated.
    """
    if launch.get("distributed_type") == "FSDP":
        config = launch["fsdp_config"]
        if str(config.get("fsdp_version", 1)) != "2":
            raise ArgumentError("fsdp_version", "2, because FSDP1 is not estimated", config.get("fsdp_version", 1))
        if str(config.get("fsdp_offload_params")).lower() in ("true", "1"):
            raise ArgumentError("fsdp_offload_params", "false, because offloading is not estimated", True)
        return {"parallelism": "FSDP2"}
    config = launch.get("deepspeed_config") or {}
    zero = config.get("zero_optimization", {})
    for part in ("offload_optimizer", "offload_param"):
        device = (zero.get(part) or {}).get("device", config.get(f"{part}_device")) or "none"
        if device != "none":
            raise ArgumentError(part, "none, because offloading is not estimated", device)
    if stage := zero.get("stage", config.get("zero_stage", 0)):
        return {"parallelism": f"ZeRO-{stage}"}
    return {"parallelism": "DDP" if processes > 1 else "one process"}
