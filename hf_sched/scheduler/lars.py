"""Trust ratios: a warmup in which each layer's learning rate depends on the norms of its weights and its gradient.

It is the one thing here that needs more than a curve. The gradient that a step will use is known only when the
optimizer is about to use it, so the ratios are worked out and set in a hook that the optimizer calls before each step.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hf_sched.scheduler.param_groups import set_rate
from hf_sched.schedules.schedule import Schedule, Segment

if TYPE_CHECKING:
    from hf_sched.scheduler.schedule_lr import ScheduleLR


def prepare(optimizer: Optimizer, schedule: Schedule) -> TrustRatio | None:
    """What scales the learning rates if the schedule asks for it; each parameter then has a group of its own.

    Raises:
        ValueError: The norms of gradients cannot be had, or the optimizer's groups can no longer be split.
    """
    warmups = [segment for segment in schedule.segments if segment.trust_coefficient is not None]
    if not warmups:
        return None
    check_no_deepspeed(_is_deepspeed(optimizer))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(getattr(parameter, "_fsdp_flattened", False) for parameter in parameters):
        raise ValueError(
            "`lars` (lars_warmup) needs each layer's weights and gradient, which FSDP1 flattens into one: use FSDP2 "
            "(`fsdp_version: 2`) or DDP, or a schedule without trust ratios"
        )
    if len(optimizer.param_groups) < len(parameters):
        if optimizer.state:
            raise ValueError(
                f"`lars` needs one parameter group a layer, but the {len(parameters)} parameters are in "
                f"{len(optimizer.param_groups)} groups, and the optimizer has stepped, so that they can no longer be "
                "split: make the scheduler before the first step"
            )
        _split_groups(optimizer)
    return TrustRatio(warmups)


def check_no_deepspeed(deepspeed: bool = False) -> None:
    """Raise a ValueError if DeepSpeed is used, or `accelerate launch` was told to."""
    if deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise ValueError(
            "`lars` (lars_warmup) needs each layer's gradient norm, which DeepSpeed does not show: use DDP or FSDP2, "
            "or a schedule without trust ratios"
        )


class TrustRatio:
    """Scales the learning rate of each parameter group by its trust ratio, in the warmups that ask for it.

    With `p` the progress of the warmup a step is scaled by `p + (1 - p) * r`, where `r` is
    `coefficient * norm(w) / (norm(g) + weight_decay * norm(w))`, 1 at most, and 1 where a norm is 0 (You et al. 2017,
    arXiv 1708.03888). So the warmup's last step is at the curve, and none is above it.
    """

    def __init__(self, warmups: list[Segment]) -> None:
        self.warmups = warmups
        self._scheduler: weakref.ref[ScheduleLR] | None = None

    def attach(self, scheduler: ScheduleLR) -> None:
        """Scale before each step of the scheduler's optimizer from now on."""
        self._scheduler = weakref.ref(scheduler)
        optimizer = scheduler.optimizer
        while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):  # Accelerate wraps it
            optimizer = inner
        optimizer.register_step_pre_hook(self._before_step)

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        scheduler = self._scheduler() if self._scheduler else None
        if scheduler is None:  # another one has taken over
            return
        step = max(scheduler.last_epoch, 0)
        for warmup in self.warmups:
            if warmup.first <= step < warmup.first + warmup.steps:
                progress = (step - warmup.first + 1) / warmup.steps
                assert warmup.trust_coefficient is not None
                ratios = trust_ratios(optimizer, warmup.trust_coefficient)
                scales = [progress + (1.0 - progress) * ratio for ratio in ratios]
                for group, rate, scale in zip(optimizer.param_groups, scheduler.get_lr(), scales, strict=True):
                    set_rate(group, float(rate) * scale)


def trust_ratios(optimizer: Optimizer, coefficient: float) -> list[float]:
    """The trust ratio of each parameter group's single parameter, from 0 to 1."""
    weights = [group["params"][0] for group in optimizer.param_groups]
    norms = _norms([*weights, *(w.grad if w.grad is not None else w.new_zeros(()) for w in weights)])
    ratios = []
    for group, w, g in zip(optimizer.param_groups, norms, norms[len(weights) :], strict=False):
        scale = g + float(group.get("weight_decay", 0.0)) * w
        ratios.append(min(coefficient * w / scale, 1.0) if w > 0 and g > 0 else 1.0)
    return ratios


@torch.no_grad()
def _norms(tensors: list[Tensor]) -> list[float]:
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    # A DTensor (FSDP2) has its share of the norm on each process.
    whole: list[Tensor] = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    return torch.stack([norm.to(whole[0].device) for norm in whole]).tolist()


def _is_deepspeed(optimizer: Optimizer) -> bool:
    """Whether DeepSpeed has taken the parameters: it keeps weights and gradients flat, in partitions."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return type(optimizer).__module__.startswith("deepspeed") or any(hasattr(p, "ds_id") for p in parameters)


def _split_groups(optimizer: Optimizer) -> None:
    """One parameter a group, in the order they are in; the groups' options stay."""
    optimizer.param_groups[:] = [
        {**group, "params": [parameter]} for group in optimizer.param_groups for parameter in group["params"]
    ]
