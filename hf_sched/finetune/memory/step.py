"""One step of training on fake tensors: what is alive at its peak beside weights and optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from hf_sched.finetune.memory.fake_model import (
    HALVES,
    are_alike,
    build,
    fake_tensors,
    is_masked,
    layers_of,
    load_config,
    made_fake,
    nbytes,
    shortened,
    trainable,
)
from hf_sched.finetune.memory.live import Live, Window
from hf_sched.finetune.memory.settings import Settings

SHORT = 4  # blocks that are traced of a model whose blocks are alike


@dataclass(frozen=True)
class Step:
    """The peaks of a step, forwards and backwards."""

    activations: int
    """The most that is alive beside weights and the gradients that the optimizer will be given."""
    transition: int
    """The most with the gradients as they are made, where none is there when the step begins."""
    gradients: int
    """Of `transition`."""


@dataclass
class _Marks:
    """What is alive, gradients aside, when each block has been gone through forwards, and when backwards reaches it."""

    forward: dict[int, int] = field(default_factory=dict)
    backward: dict[int, int] = field(default_factory=dict)


@lru_cache(maxsize=64)
def trace_step(settings: Settings) -> Step:
    """Trace a step; of a model whose blocks are alike a few, and the others are extrapolated, which is exact.

    Each further block saves as much for the backward pass as those before it, while its forward pass and the first half
    of the backward pass last, and leaves as many gradients in the second half.
    """
    config = load_config(settings)
    model = build(settings, config)
    blocks = layers_of(model)
    more = max(len(blocks) - SHORT, 0) if blocks and are_alike(blocks) else 0
    block_gradients = nbytes(trainable(blocks[0])) if blocks else 0
    if more:
        model = build(settings, shortened(config, SHORT))
    with fake_tensors():
        forward, early, late, marks = _run(made_fake(model), settings)
    for window, saved in ((forward, marks.forward), (early, marks.backward)):
        per_block = saved[SHORT - 2] - saved[SHORT - 3] if more else 0
        window.activations += more * per_block
        window.transition += more * per_block
    late.transition += more * block_gradients
    late.gradients += more * block_gradients
    windows = (forward, early, late)
    highest = max(windows, key=lambda window: window.transition)
    return Step(max(window.activations for window in windows), highest.transition, highest.gradients)


def run_step(
    model: nn.Module,
    settings: Settings,
    ids: torch.Tensor,
    mask: torch.Tensor | None,
    turn: Callable[[], None] = lambda: None,
) -> None:
    """The forward and the backward pass of a batch, as the trainers make them; `turn` is called between them."""
    fused = {"fused_lm_head": True} if hasattr(model, "forward") and _is_fused(model) else {}
    with autocast(settings):
        output = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False, **fused)
    loss = output.log_probs.sum() if fused else output.loss
    del output
    turn()
    loss.backward()


def autocast(settings: Settings) -> Any:
    """The context of Accelerate's mixed precision."""
    # DeepSpeed and FSDP cast the weights instead.
    mixed = "no" if settings.spread.shards_optimizer else settings.mixed
    # Fake tensors are on the CPU, whose autocast has bfloat16's sizes for float16 as well.
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed in HALVES)


def batch_of(settings: Settings) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids and attention mask of the largest batch."""
    rows, length = (1, settings.batch * settings.length) if settings.packed else (settings.batch, settings.length)
    ids = torch.zeros((rows, length), dtype=torch.long)
    mask = torch.ones((rows, 1, length, length), dtype=torch.bool).tril() if is_masked(settings) else None
    return ids, mask


def _run(model: nn.Module, settings: Settings) -> tuple[Window, Window, Window, _Marks]:
    blocks = layers_of(model)
    live = Live([*model.parameters(), *model.buffers()])
    live.own_gradients(trainable(model))
    marks = _Marks()
    windows = [Window(), Window(), Window()]  # forwards, the first half backwards, the second

    def enter(number: int) -> None:
        live.window = windows[number]
        live.window.activations = max(live.window.activations, live.activations)

    def reached(index: int, grad: torch.Tensor) -> None:
        marks.backward.setdefault(index, live.activations)
        enter(2 if index < len(blocks) // 2 else 1)

    def passed(index: int, out: Any) -> None:
        marks.forward.setdefault(index, live.activations)
        tensor = out[0] if isinstance(out, tuple) else out
        if tensor.requires_grad:
            tensor.register_hook(lambda grad: reached(index, grad))

    for index, block in enumerate(blocks):
        block.register_forward_hook(lambda module, args, out, index=index: passed(index, out))
    enter(0)
    with live, _silent_tiles(settings):
        ids, mask = batch_of(settings)
        run_step(model, settings, ids, mask, turn=lambda: enter(1))
    forward, early, late = windows
    return forward, early, late, marks


def _is_fused(model: nn.Module) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return "forward" in vars(base)  # TRL puts its fused head on the instance


@contextlib.contextmanager
def _silent_tiles(settings: Settings) -> Iterator[None]:
    """On a GPU a Triton kernel folds the logits of a tile in place; without one operations do that make copies."""
    try:
        from trl.kernels import chunked_logprob
    except ImportError:
        chunked_logprob = None
    if not settings.on_gpu or chunked_logprob is None:
        yield
        return
    names = ("_forward_tile", "_backward_tile")
    kept = {name: getattr(chunked_logprob, name) for name in names}
    try:
        for name in names:
            setattr(chunked_logprob, name, lambda *args, **kwargs: None)
        yield
    finally:
        for name, function in kept.items():
            setattr(chunked_logprob, name, function)
