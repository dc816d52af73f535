"""The model of a run without its memory: on the meta device for its shapes and types, on fake tensors to run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.integrations import deepspeed
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from trl.trainer import utils as trl_utils

from hf_sched.finetune.memory.settings import Lora, Settings

try:
    from transformers.initialization import no_init_weights
except ImportError:  # before transformers 5
    from transformers.modeling_utils import no_init_weights

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_UNMASKED = "sdpa_unmasked"


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Within, tensors are made without memory, and operations give shapes and types alone."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@contextmanager
def unsharded() -> Iterator[None]:
    """Within, a model is made whole also under ZeRO-3, where it would take all processes to make their parts."""
    kept = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = kept


def load_config(settings: Settings) -> Any:
    """The model's configuration, which is all that is read of it."""
    return AutoConfig.from_pretrained(
        settings.model, revision=settings.revision, trust_remote_code=settings.trust_remote_code
    )


def build(settings: Settings, config: Any) -> Any:
    """The model as the trainer would have it, LoRA and all, on the meta device."""
    AttentionInterface.register(_UNMASKED, sdpa_attention_forward)
    AttentionMaskInterface.register(_UNMASKED, lambda *args, **kwargs: None)
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=loaded_dtype(settings, config),
            attn_implementation="eager"
            if settings.attention == "eager"
            else "sdpa"
            if is_masked(settings)
            else _UNMASKED,
            trust_remote_code=settings.trust_remote_code,
        )
        model.tie_weights()  # which goes by the way where weights are not initialized
        if hasattr(trl_utils, "add_fused_lm_head"):
            outputs = ("log_probs", "entropy", "is_top1") if settings.kind == "sft" else ("log_probs", "entropy")
            trl_utils.add_fused_lm_head(model, outputs=outputs)
        if settings.lora:
            model = _with_lora(model, settings.lora, settings)
    if settings.checkpointing:
        switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        switch()
        if settings.lora:
            model.enable_input_require_grads()
    return model.train()


def made_fake(model: nn.Module) -> nn.Module:
    """The model, from the meta device on to fake tensors that an operation of the CPU takes; within `fake_tensors`."""
    # Module.to would swap tensors, which fake ones do not allow.
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    is_weight = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_weight else fake
                tensors[name] = made[id(tensor)]  # type: ignore[assignment]
    return model


def loaded_dtype(settings: Settings, config: Any) -> Any:
    """The type that the weights are computed with: that they are loaded in, or that DeepSpeed or FSDP casts them to."""
    if settings.spread.shards_optimizer and settings.mixed in HALVES and not settings.bits:
        return HALVES[settings.mixed]
    if settings.dtype == "auto":
        return getattr(config, "dtype", None) or torch.float32
    return getattr(torch, settings.dtype)


def is_masked(settings: Settings) -> bool:
    """Whether attention is given a mask, as it is for rows of several lengths unless its kernel takes lengths."""
    if "flash" in (settings.attention or ""):
        return False
    return settings.packed or settings.batch > 1


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of the model in order; none where they cannot be told."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    blocks = [one for one in lists if len(one) and all(isinstance(part, GradientCheckpointingLayer) for part in one)]
    return max(map(list, blocks), key=len) if blocks else []


def are_alike(layers: list[nn.Module]) -> bool:
    """Whether all blocks have the same parameters."""
    shapes = [[(name, part.shape, part.dtype) for name, part in layer.named_parameters()] for layer in layers]
    return all(one == shapes[0] for one in shapes)


def shortened(config: Any, layers: int) -> Any:
    """The configuration of the model's first blocks."""
    short = deepcopy(config)
    inner = short.get_text_config()
    inner.num_hidden_layers = layers
    if getattr(inner, "layer_types", None):
        inner.layer_types = inner.layer_types[:layers]
    return short


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """What the optimizer is given."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def nbytes(tensors: Any) -> int:
    """The bytes of tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def weight_bytes(model: nn.Module, settings: Settings) -> int:
    """The bytes of all weights and buffers, quantized ones by bitsandbytes' layout."""
    total = nbytes(model.parameters()) + nbytes(model.buffers())
    if settings.bits:
        total -= sum(nbytes([weight]) - _quantized(weight, settings) for weight in _quantizable(model))
    return total


def _quantizable(model: nn.Module) -> list[torch.Tensor]:
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = [part for part in model.modules() if isinstance(part, nn.Linear) and part is not head]
    return [part.weight for part in linear if not part.weight.requires_grad]


def _quantized(weight: torch.Tensor, settings: Settings) -> int:
    # 8 bits: a byte each, a float32 a row. 4 bits (QLoRA, 2305.14314): a float32 for 64; nested: a byte for 64 and a
    # float32 for 256 of these.
    if settings.bits == 8:
        return weight.numel() + 4 * weight.shape[0]
    blocks = -(-weight.numel() // 64)
    return -(-weight.numel() // 2) + (blocks + 4 * -(-blocks // 256) if settings.nested else 4 * blocks)


def _with_lora(model: nn.Module, lora: Lora, settings: Settings) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = list(lora.target_modules) if isinstance(lora.target_modules, tuple) else lora.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=list(lora.modules_to_save) if lora.modules_to_save else None,
        use_dora=lora.use_dora,
    )
    # TRL keeps adapters in the model's type under ZeRO-3, in bfloat16 on a quantized model; else peft makes float32.
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=settings.spread.kind != "ZeRO-3")
    if settings.bits:
        for parameter in trainable(wrapped):
            parameter.data = parameter.data.to(torch.bfloat16)
    elif settings.spread.shards_optimizer and settings.mixed in HALVES:
        wrapped.to(HALVES[settings.mixed])
    return wrapped
