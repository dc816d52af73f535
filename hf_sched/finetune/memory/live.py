"""Counts the bytes that are alive, operation by operation, in a step of training."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Window:
    """The most that was alive in a part of the step, beside the weights."""

    activations: int = 0
    """Of all but the gradients that the optimizer will be given."""
    transition: int = 0
    """With these gradients, as far as they had been made."""
    gradients: int = 0
    """Those gradients, at the moment of `transition`."""


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, storages are counted from the operation that makes them until they are freed; of any tensors."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {_key(tensor) for tensor in known}
        self._alive: dict[int, int] = {}
        self.all = 0
        self.gradients = 0
        self.window = Window()

    @property
    def activations(self) -> int:
        """What is alive now, gradients aside."""
        return self.all - self.gradients

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return out

    def own_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Count what these parameters get as gradients apart from activations."""
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._own)  # type: ignore[no-untyped-call]

    def _own(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.gradients += parameter.grad.untyped_storage().nbytes()

    def _count(self, tensor: torch.Tensor) -> None:
        key, storage = _key(tensor), tensor.untyped_storage()
        if key in self._known or key in self._alive:
            return
        self._alive[key] = size = storage.nbytes()
        self.all += size
        weakref.finalize(storage, self._free, key)
        window = self.window
        window.activations = max(window.activations, self.activations)
        if self.all > window.transition:
            window.transition, window.gradients = self.all, self.gradients

    def _free(self, key: int) -> None:
        self.all -= self._alive.pop(key)


def _key(tensor: torch.Tensor) -> int:
    # Of the storage itself: Python's wrappers of it come and go.
    return int(tensor.untyped_storage()._cdata)
