"""The learning rates in an optimizer's parameter groups, each a number or a tensor."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def set_rate(group: dict[str, Any], rate: float | Tensor, name: str = "lr") -> None:
    """Set a group's learning rate, or its peak (`initial_lr`).

    A tensor is filled in place because compiled steps and CUDA graphs hold on to it.
    """
    value = group.get(name)
    if isinstance(value, Tensor):
        value.fill_(rate)
    else:
        group[name] = rate


def unwrap(optimizer: Any) -> Any:
    """The torch optimizer inside Accelerate's wrapper."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    return optimizer
