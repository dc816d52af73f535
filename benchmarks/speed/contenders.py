"""The contenders: a linear warmup, then half a cosine to 0, by each library on a torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

import hf_sched

PEAK = 1e-3


class BareLoop:
    """The least that a scheduler does: look up the next rate and write it to the groups."""

    def __init__(self, optimizer: Optimizer, warmup: int, steps: int) -> None:
        self.optimizer = optimizer
        peaks = [group["lr"] for group in optimizer.param_groups]
        curve = np.append(numpy_curve(1.0, warmup, steps), 0.0)
        self.rates: list[Any] = (peaks[0] * curve).tolist()
        self.last_epoch = 0
        if len(set(peaks)) > 1:
            self.rates = np.outer(curve, peaks).tolist()
            self.step = self.step_rows  # type: ignore[method-assign]

    def step(self) -> None:
        """Write the next rate to all groups."""
        self.last_epoch += 1
        rate = self.rates[self.last_epoch]
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step_rows(self) -> None:
        """Write the next row of rates, one to each group."""
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.rates[self.last_epoch], strict=True):
            group["lr"] = rate


def numpy_curve(peak: float, warmup: int, steps: int) -> Any:
    """The curve of `warmup_cosine` in plain NumPy."""
    rise = np.arange(1, warmup + 1) * (peak / warmup)
    fall = 0.5 * peak * (1.0 + np.cos(np.arange(1, steps - warmup + 1) * (math.pi / (steps - warmup))))
    return np.concatenate([rise, fall])


def _sequential(optimizer: Optimizer, warmup: int, steps: int) -> SequentialLR:
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, T_max=steps - warmup)], milestones=[warmup])


# Each makes a scheduler from an optimizer, the warmup steps and all steps.
SCHEDULERS: dict[str, Callable[[Optimizer, int, int], Any]] = {
    "hf_sched": lambda optimizer, warmup, steps: hf_sched.get_scheduler("warmup_cosine", optimizer, warmup, steps, {}),
    "bare loop": BareLoop,
    "transformers": lambda optimizer, warmup, steps: transformers.get_scheduler("cosine", optimizer, warmup, steps),
    "torch CosineAnnealingLR": lambda optimizer, _, steps: CosineAnnealingLR(optimizer, T_max=steps),
    "torch SequentialLR": _sequential,
}


def start(name: str, peaks: Sequence[float | torch.Tensor], warmup: int, steps: int) -> tuple[Optimizer, Any]:
    """A new optimizer with one parameter group for each peak, and a new scheduler on it."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": peak} for peak in peaks]
    optimizer = torch.optim.SGD(groups[:1])
    # `add_param_group` compares each group with all before it, which is slow for a thousand.
    optimizer.param_groups += [{**optimizer.param_groups[0], **group} for group in groups[1:]]
    scheduler = SCHEDULERS[name](optimizer, warmup, steps)
    optimizer.step()  # torch warns if the scheduler steps first
    return optimizer, scheduler
