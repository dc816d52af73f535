"""What an optimizer keeps for each parameter, and what it takes for a moment while it steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.optimization import Adafactor

from hf_sched.finetune.memory.fake_model import fake_tensors
from hf_sched.finetune.memory.live import Live


@dataclass(frozen=True)
class States:
    """Bytes of an optimizer."""

    kept: int
    """From its first step on."""
    momentary: int
    """While it steps, beside what is kept."""


def _adafactor(parameters: list[torch.Tensor]) -> Any:
    return Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)  # as the Trainer makes it


_MADE: dict[str, Callable[[list[torch.Tensor]], Any]] = {
    "adamw_torch": lambda parameters: torch.optim.AdamW(parameters, foreach=False),
    "adamw_torch_fused": lambda parameters: torch.optim.AdamW(parameters, foreach=False),
    "adafactor": _adafactor,
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, foreach=False),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, foreach=False),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, foreach=False),
}
# Of bitsandbytes (2110.02861): how many moments, of 8 or 32 bits.
_BITSANDBYTES = {
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), (2, 8)),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit"), (1, 8)),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit", "rmsprop_bnb", "rmsprop_bnb_32bit"), (1, 32)),
    "paged_adamw_32bit": (2, 32),
}
KNOWN = (*_MADE, *_BITSANDBYTES)


def states(optim: str, parameters: Iterable[torch.Tensor], *, all_at_once: bool) -> States:
    """The states of an optimizer for parameters of these shapes and types.

    Args:
        optim: The Trainer's name of it.
        parameters: What it is given; only their shapes and types matter.
        all_at_once: Whether it goes over all parameters in one operation, as torch's do on a GPU unless fused.

    Raises:
        ValueError: What this optimizer keeps is not known here.
    """
    if optim not in KNOWN:
        raise ValueError(f"`optim` must be one of {', '.join(KNOWN)}, received {optim!r}: its memory is not known here")
    kinds = Counter((tuple(one.shape), one.dtype) for one in parameters)
    found = {kind: _of_one(optim, *kind) for kind in kinds}
    kept = sum(found[kind].kept * number for kind, number in kinds.items())
    moments = [(found[kind].momentary, number) for kind, number in kinds.items()]
    together = all_at_once and optim in _MADE and optim not in ("adamw_torch_fused", "adafactor")
    return States(
        kept,
        sum(size * number for size, number in moments) if together else max((size for size, _ in moments), default=0),
    )


def _of_one(optim: str, shape: tuple[int, ...], dtype: torch.dtype) -> States:
    if optim in _BITSANDBYTES:
        return States(_quantized(torch.Size(shape).numel(), *_BITSANDBYTES[optim]), 0)
    with fake_tensors():
        parameter = torch.nn.Parameter(torch.empty(shape, dtype=dtype))
        parameter.grad = torch.empty(shape, dtype=dtype)
        optimizer = _MADE[optim]([parameter])
        before = _kept(optimizer)  # some make theirs at once
        live = Live([parameter, parameter.grad])
        with live:
            optimizer.step()
        kept = _kept(optimizer)
    fused = optim == "adamw_torch_fused"
    return States(kept, 0 if fused else live.window.activations - (kept - before))


def _kept(optimizer: Any) -> int:
    state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, torch.Tensor)]
    return sum(value.numel() * value.element_size() for value in state)


def _quantized(numel: int, moments: int, bits: int) -> int:
    # Tensors below 4096 elements stay in 32 bits; of the others each block of 256 has a float32 of its own.
    if bits == 32 or numel < 4096:
        return 4 * moments * numel
    return moments * (numel + 4 * -(-numel // 256))
