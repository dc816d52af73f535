"""The contenders: a linear warmup, then half a cosine to 0, by each library on a torch optimizer."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

import hf_sched

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported

PEAK = 1e-3
Make = Callable[[Optimizer, int, int], Any]
"""Makes a scheduler from an optimizer, the warmup steps and all steps."""


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


class Optax:
    """Writes the value of a compiled optax schedule to the groups."""

    def __init__(self, optimizer: Optimizer, warmup: int, steps: int) -> None:
        self.optimizer = optimizer
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.schedule = optax_schedule(warmup, steps)
        self.schedule(0)  # compiles it
        self.count = 0

    def step(self) -> None:
        """Evaluate the schedule once and scale it to each group's peak."""
        self.count += 1
        value = float(self.schedule(self.count))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = value * peak


def optax_schedule(warmup: int, steps: int) -> Callable[[Any], Any]:
    """The compiled schedule with a peak of 1, in double precision like all others."""
    jax, optax = importlib.import_module("jax"), importlib.import_module("optax")
    jax.config.update("jax_enable_x64", True)
    schedule: Callable[[Any], Any] = jax.jit(optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, steps))
    return schedule


def numpy_curve(peak: float, warmup: int, steps: int) -> Any:
    """The curve of `warmup_cosine` in plain NumPy."""
    rise = np.arange(1, warmup + 1) * (peak / warmup)
    fall = 0.5 * peak * (1.0 + np.cos(np.arange(1, steps - warmup + 1) * (math.pi / (steps - warmup))))
    return np.concatenate([rise, fall])


def _sequential(optimizer: Optimizer, warmup: int, steps: int) -> SequentialLR:
    rise = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, T_max=steps - warmup)], milestones=[warmup])


SCHEDULERS: dict[str, Make] = {
    "hf_sched": lambda optimizer, warmup, steps: hf_sched.get_scheduler("warmup_cosine", optimizer, warmup, steps, {}),
    "bare loop": BareLoop,
    "transformers": lambda optimizer, warmup, steps: transformers.get_scheduler("cosine", optimizer, warmup, steps),
    "torch CosineAnnealingLR": lambda optimizer, _, steps: CosineAnnealingLR(optimizer, T_max=steps),
    "torch SequentialLR": _sequential,
}
if importlib.util.find_spec("optax"):
    SCHEDULERS["optax"] = Optax
FLOATS_ONLY = ("bare loop", "optax")


def start(name: str, peaks: Sequence[float | torch.Tensor], warmup: int, steps: int) -> tuple[Optimizer, Any]:
    """A new optimizer with one parameter group for each peak, and a new scheduler on it."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": peak} for peak in peaks]
    optimizer = torch.optim.SGD(groups[:1])
    # `add_param_group` compares each group with all before it, which is slow for a thousand.
    optimizer.param_groups += [{**optimizer.param_groups[0], **group} for group in groups[1:]]
    scheduler = SCHEDULERS[name](optimizer, warmup, steps)
    optimizer.step()  # torch warns if the scheduler steps first
    return optimizer, scheduler


def check(name: str, peaks: Sequence[float | torch.Tensor]) -> None:
    """Run a short schedule, so that nothing is timed that does not do the work.

    Raises:
        ValueError: A group's rates do not rise to its own peak and fall to 0.
    """
    expected = [float(peak) for peak in peaks]
    optimizer, scheduler = start(name, peaks, 10, 100)
    rates = []
    for _ in range(100):
        scheduler.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    for peak, of_group in zip(expected, np.array(rates).T, strict=True):
        reaches_peak = math.isclose(of_group.max(), peak, rel_tol=0.01)
        if not reaches_peak or len(set(of_group)) < 80 or not 0.0 <= of_group[-1] <= 0.01 * peak:
            raise ValueError(f"{name} does not rise to {peak:g} and fall to 0")


def curves(warmup: int, steps: int, scalar_steps: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """By name: a function that computes the learning rates of a whole run, and the number of its steps."""
    ratio = scalar_steps / steps
    _, theirs = start("transformers", [PEAK], round(warmup * ratio), scalar_steps)
    (factor,) = theirs.lr_lambdas
    optimizer, sequential = start("torch SequentialLR", [PEAK], round(warmup * ratio), scalar_steps)

    def step_through() -> list[float]:
        rates = []
        for _ in range(scalar_steps):
            sequential.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    found: dict[str, tuple[Callable[[], Any], int]] = {
        "hf_sched": (
            lambda: hf_sched.build("warmup_cosine", num_training_steps=steps, num_warmup_steps=warmup).curve(peak=PEAK),
            steps,
        ),
        "plain NumPy": (lambda: numpy_curve(PEAK, warmup, steps), steps),
        "transformers": (lambda: [PEAK * factor(step) for step in range(scalar_steps)], scalar_steps),
        "torch SequentialLR": (step_through, scalar_steps),
    }
    if "optax" in SCHEDULERS:
        schedule, jnp = optax_schedule(warmup, steps), importlib.import_module("jax.numpy")
        found["optax"] = (lambda: PEAK * np.asarray(schedule(jnp.arange(steps))), steps)
        found["optax"][0]()  # compiles it
    return found
