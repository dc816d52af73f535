"""Trust ratios: a warmup in which each layer's learning rate depends on the norms of its weights and its gradient.

This is the only schedule that needs more than a curve. The gradient of a step is known only when the optimizer is about
to use it, so a hook that the optimizer calls before each step computes the ratios and sets the learning rates.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hf_sched.scheduler.param_groups import Optimizers, set_rate
from hf_sched.schedules.schedule import Schedule, Segment

if TYPE_CHECKING:
    from hf_sched.scheduler.schedule_lr import ScheduleLR

_UNAVAILABLE = (
    "`lars` (lars_warmup) needs each layer's weights and gradient, which {}: use DDP or FSDP2 (`fsdp_version: 2`), or "
    "a schedule without trust ratios"
)


def prepare(optimizers: Optimizers, schedule: Schedule) -> list[Segment]:
    """Return the warmups with trust ratios; if there are any, give each parameter its own group.

    Raise a ValueError if the norms of gradients are not available.
    """
    warmups = [segment for segment in schedule.segments if segment.trust_coefficient is not None]
    if not warmups:
        return []
    parameters = [p for one in optimizers.training for group in one.param_groups for p in group["params"]]
    is_deepspeed = any(type(one).__module__.startswith("deepspeed") for one in optimizers.every)
    check_no_deepspeed(is_deepspeed or any(hasattr(parameter, "ds_id") for parameter in parameters))
    if any(getattr(parameter, "_fsdp_flattened", False) for parameter in parameters):
        raise ValueError(_UNAVAILABLE.format("FSDP1 flattens"))
    split_groups(optimizers.training)
    return warmups


def split_groups(optimizers: Iterable[Any]) -> None:
    """Give each parameter its own group."""
    for groups in (optimizer.param_groups for optimizer in optimizers):
        if any(len(group["params"]) > 1 for group in groups):
            groups[:] = [{**_copied(group), "params": [parameter]} for group in groups for parameter in group["params"]]


def _copied(group: dict[str, Any]) -> dict[str, Any]:
    """A group with its own copy of the learning rate, if that is a tensor."""
    rates = {name: group[name].clone() for name in ("lr", "initial_lr") if isinstance(group.get(name), Tensor)}
    return {**group, **rates}


def check_no_deepspeed(is_deepspeed: bool = False) -> None:
    """Raise a ValueError if DeepSpeed is used, or if `accelerate launch` is configured to use it."""
    if is_deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise ValueError(_UNAVAILABLE.format("DeepSpeed does not provide"))


def scale_by_trust_ratio(scheduler: ScheduleLR, warmups: list[Segment]) -> None:
    """Scale the learning rate of each parameter group by its trust ratio before each step of these warmups.

    At progress `p` of the warmup, the curve is multiplied by `p + (1 - p) * r`, where `r` is
    `coefficient * norm(w) / (norm(g) + weight_decay * norm(w))`, at most 1, and 1 if a norm is 0 (You et al. 2017,
    arXiv 1708.03888). The last step of the warmup is on the curve, and no step is above it.
    """
    reference = weakref.ref(scheduler)  # a new scheduler may replace this one

    def before_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        current = reference()
        step = max(current.last_epoch, 0) if current else -1
        for warmup in warmups:
            if current and warmup.first <= step < warmup.first + warmup.steps:
                progress = (step - warmup.first + 1) / warmup.steps
                ratios = trust_ratios(optimizer, warmup.trust_coefficient or 0.0)
                rates = dict(zip(map(id, current.groups), current.rates(), strict=True))
                for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                    set_rate(group, rates[id(group)] * (progress + (1.0 - progress) * ratio))

    for optimizer in scheduler.optimizers.training if warmups else ():
        optimizer.register_step_pre_hook(before_step)


@torch.no_grad()
def trust_ratios(optimizer: Optimizer, coefficient: float) -> list[float]:
    """The trust ratio of each parameter group's single parameter, from 0 to 1.

    A fused optimizer receives gradients that are still multiplied by the scale of a gradient scaler, `grad_scale`.
    """
    scale = getattr(optimizer, "grad_scale", None)
    unscale = 1.0 if scale is None else 1.0 / float(scale)
    weights = [group["params"][0] for group in optimizer.param_groups]
    tensors = [*weights, *(w.grad if w.grad is not None else w.new_zeros(()) for w in weights)]
    parts = [torch.linalg.vector_norm(tensor, dtype=torch.float32) for tensor in tensors]
    # The norm of a DTensor (FSDP2) is distributed over the processes.
    whole: list[Tensor] = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in parts]
    norms = torch.stack([norm.to(whole[0].device) for norm in whole]).tolist()
    ratios = []
    for group, w, g in zip(optimizer.param_groups, norms, norms[len(weights) :], strict=False):
        divisor = g * unscale + float(group.get("weight_decay", 0.0)) * w
        ratios.append(min(coefficient * w / divisor, 1.0) if w > 0 and g > 0 else 1.0)
    return ratios
