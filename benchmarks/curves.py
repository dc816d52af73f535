"""Whole curves: the learning rate of every step of a run, as each library gives it for one parameter group."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import contenders
from contenders import PEAK, Contender

Draw = Callable[[], Any]
"""What gives the learning rates of a run, once."""


@dataclass(frozen=True)
class Curve:
    """A library's way to a whole curve."""

    name: str
    module: str
    prepare: Callable[[Any, int, int], Draw]
    """From the module, warmup steps and all steps."""
    note: str = ""
    vectorised: bool = False
    """Whether all steps are worked out at once; otherwise it may be timed on fewer."""

    def ready(self, warmup: int, steps: int) -> Draw:
        """A new run, with nothing left to be timed but the rates."""
        return self.prepare(importlib.import_module(self.module), warmup, steps)


def _hf_sched(hf_sched: Any, warmup: int, steps: int) -> Draw:
    # Built within the timed call, so that nothing kept from an earlier call can help.
    return lambda: hf_sched.build("warmup_cosine", num_training_steps=steps, num_warmup_steps=warmup).curve(peak=PEAK)


def _numpy(np: Any, warmup: int, steps: int) -> Draw:
    return lambda: contenders.numpy_curve(np, PEAK, warmup, steps)


def _optax(optax: Any, warmup: int, steps: int) -> Draw:
    np, jnp = importlib.import_module("numpy"), importlib.import_module("jax.numpy")
    schedule = contenders.optax_schedule(optax, warmup, steps)

    def draw() -> Any:
        return PEAK * np.asarray(schedule(jnp.arange(steps)))

    draw()  # compiles it
    return draw


def _transformers(_: Any, warmup: int, steps: int) -> Draw:
    _, scheduler = contenders.TRANSFORMERS.start([PEAK], warmup, steps)
    (factor,) = scheduler.lr_lambdas
    return lambda: [PEAK * factor(step) for step in range(steps)]


def _torch_closed_form(_: Any, warmup: int, steps: int) -> Draw:
    _, scheduler = contenders.TORCH_COSINE.start([PEAK], warmup, steps)

    def draw() -> list[float]:
        rates = []
        for scheduler.last_epoch in range(steps):
            rates += scheduler._get_closed_form_lr()
        return rates

    return draw


def _timm(_: Any, warmup: int, steps: int) -> Draw:
    _, updates = contenders.TIMM.start([PEAK], warmup, steps)
    get_lr = updates.scheduler._get_lr
    return lambda: [get_lr(step)[0] for step in range(steps)]


def _stepping(contender: Contender) -> Curve:
    def prepare(_: Any, warmup: int, steps: int) -> Draw:
        optimizer, scheduler = contender.start([PEAK], warmup, steps)
        (group,) = optimizer.param_groups

        def draw() -> list[float]:
            rates = []
            for _ in range(steps):
                scheduler.step()
                rates.append(group["lr"])
            return rates

        return draw

    return Curve(contender.name, contender.module, prepare, f"{contender.note}, by stepping")


HF_SCHED = Curve("hf_sched", "hf_sched", _hf_sched, "`build(...).curve(peak=...)`", vectorised=True)
NUMPY = Curve("plain NumPy", "numpy", _numpy, vectorised=True)
TRANSFORMERS = Curve("transformers", "transformers", _transformers, "its lambda, step after step")

CURVES = (
    HF_SCHED,
    NUMPY,
    TRANSFORMERS,
    Curve("torch, closed form", "torch.optim.lr_scheduler", _torch_closed_form, "CosineAnnealingLR, step after step"),
    _stepping(contenders.TORCH_SEQUENTIAL),
    Curve("timm", "timm_scheduler", _timm, "`_get_lr`, step after step"),
    _stepping(contenders.PYTORCH_OPTIMIZER),
    _stepping(contenders.PYTORCH_SCHEDULER),
    Curve("optax", "optax", _optax, "jitted over an array, in float64, on CPU, as a NumPy array", vectorised=True),
)
