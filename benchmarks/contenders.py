"""The contenders: a linear warmup, then half a cosine to 0, as each library plays it on a torch optimizer.

A library is imported when it is requested, so that one that is not installed can be left out.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

# jax reads this when it is imported; from an accelerator each rate would have to be fetched.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

PEAK = 1e-3
CHECKED_WARMUP, CHECKED_STEPS = 10, 100


@dataclass(frozen=True)
class Contender:
    """A library's scheduler."""

    name: str
    module: str
    make: Callable[[Any, Optimizer, int, int], Any]
    """From the module, an optimizer, warmup steps and all steps to an object whose `step()` follows each training step.
    """
    note: str = ""
    own_rates: bool = True
    """Whether each parameter group may have a peak of its own."""

    def start(self, peaks: Sequence[float], warmup: int, steps: int) -> tuple[Optimizer, Any]:
        """A new optimizer with one parameter group for each peak, and a new scheduler on it."""
        import torch

        groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": peak} for peak in peaks]
        optimizer = torch.optim.SGD(groups[:1])
        # `add_param_group` compares each group with all before it, which takes long where there are a thousand.
        optimizer.param_groups += [{**optimizer.param_groups[0], **group} for group in groups[1:]]
        scheduler = self.make(importlib.import_module(self.module), optimizer, warmup, steps)
        optimizer.step()  # once, since torch warns of a scheduler that steps before its optimizer
        return optimizer, scheduler


class BareLoop:
    """The least a scheduler can do: look the next rate up and write it to the groups."""

    def __init__(self, optimizer: Optimizer, rates: list[float]) -> None:
        self.optimizer = optimizer
        self.rates = rates
        self.last_epoch = 0

    def step(self) -> None:
        """Write the next rate to all groups."""
        self.last_epoch += 1
        rate = self.rates[self.last_epoch]
        for group in self.optimizer.param_groups:
            group["lr"] = rate


class BareLoopOfRows:
    """The same where each group has a rate of its own."""

    def __init__(self, optimizer: Optimizer, rows: list[list[float]]) -> None:
        self.optimizer = optimizer
        self.rows = rows
        self.last_epoch = 0

    def step(self) -> None:
        """Write the next row of rates, one to each group."""
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.rows[self.last_epoch], strict=True):
            group["lr"] = rate


class TimmUpdates:
    """timm's scheduler and the count of updates that it asks its training loop for."""

    def __init__(self, timm: Any, optimizer: Optimizer, warmup: int, steps: int) -> None:
        # With `warmup_prefix` the warmup comes before `t_initial`, and the cosine starts at the peak.
        self.scheduler = timm.CosineLRScheduler(
            optimizer, t_initial=steps - warmup, warmup_t=warmup, warmup_prefix=True, t_in_epochs=False
        )
        self.updates = 0

    def step(self) -> None:
        """One update."""
        self.updates += 1
        self.scheduler.step_update(self.updates)


class OptaxRates:
    """Writes the value of a compiled optax schedule to the groups of a torch optimizer."""

    def __init__(self, optax: Any, optimizer: Optimizer, warmup: int, steps: int) -> None:
        self.optimizer = optimizer
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        self.schedule = optax_schedule(optax, warmup, steps)
        self.schedule(0)  # compiles it
        self.count = 0

    def step(self) -> None:
        """Evaluate the schedule once and scale it to each group's peak."""
        self.count += 1
        value = float(self.schedule(self.count))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = value * peak


def optax_schedule(optax: Any, warmup: int, steps: int) -> Callable[[Any], Any]:
    """The compiled schedule with a peak of 1, in double precision as all the others."""
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    schedule: Callable[[Any], Any] = jax.jit(optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup, steps))
    return schedule


def numpy_curve(np: Any, peak: float, warmup: int, steps: int) -> Any:
    """The curve in plain NumPy, as hf_sched has it: the last warmup step at the peak, the last step at 0."""
    rise = np.arange(1, warmup + 1) * (peak / warmup)
    fall = 0.5 * peak * (1.0 + np.cos(np.arange(1, steps - warmup + 1) * (math.pi / (steps - warmup))))
    return np.concatenate([rise, fall])


def _bare_loop(np: Any, optimizer: Optimizer, warmup: int, steps: int) -> BareLoop | BareLoopOfRows:
    peaks = [group["lr"] for group in optimizer.param_groups]
    curve = np.append(numpy_curve(np, 1.0, warmup, steps), 0.0)
    if len(set(peaks)) == 1:
        return BareLoop(optimizer, (peaks[0] * curve).tolist())
    return BareLoopOfRows(optimizer, np.outer(curve, peaks).tolist())


def _torch_sequential(lr_scheduler: Any, optimizer: Optimizer, warmup: int, steps: int) -> Any:
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps - warmup)
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warmup])


HF_SCHED = Contender(
    "hf_sched",
    "hf_sched",
    lambda module, optimizer, warmup, steps: module.get_scheduler("warmup_cosine", optimizer, warmup, steps, {}),
)
BARE_LOOP = Contender("bare loop", "numpy", _bare_loop, note="rates worked out before")
TRANSFORMERS = Contender(
    "transformers",
    "transformers",
    lambda module, optimizer, warmup, steps: module.get_scheduler("cosine", optimizer, warmup, steps),
    note="LambdaLR",
)
TORCH_COSINE = Contender(
    "torch CosineAnnealingLR",
    "torch.optim.lr_scheduler",
    lambda module, optimizer, _, steps: module.CosineAnnealingLR(optimizer, T_max=steps),
    note="has no warmup",
)
TORCH_SEQUENTIAL = Contender(
    "torch SequentialLR", "torch.optim.lr_scheduler", _torch_sequential, note="of LinearLR and CosineAnnealingLR"
)
TIMM = Contender("timm", "timm_scheduler", TimmUpdates, note="CosineLRScheduler, `step_update`")
PYTORCH_OPTIMIZER = Contender(
    "pytorch_optimizer",
    "pytorch_optimizer",
    lambda module, optimizer, warmup, steps: module.CosineScheduler(
        optimizer, t_max=steps, max_lr=optimizer.param_groups[0]["lr"], warmup_steps=warmup
    ),
    note="CosineScheduler",
    own_rates=False,
)
PYTORCH_SCHEDULER = Contender(
    "pytorch_scheduler",
    "pytorch_scheduler",
    lambda module, optimizer, warmup, steps: module.CosineWithWarmupScheduler(optimizer, steps, warmup),
    note="CosineWithWarmupScheduler",
)
OPTAX = Contender("optax", "optax", OptaxRates, note="one call of the jitted schedule, written to the groups")

CONTENDERS = (
    HF_SCHED,
    BARE_LOOP,
    TRANSFORMERS,
    TORCH_COSINE,
    TORCH_SEQUENTIAL,
    TIMM,
    PYTORCH_OPTIMIZER,
    PYTORCH_SCHEDULER,
    OPTAX,
)
OPTIONAL = {"timm_scheduler", "pytorch_optimizer", "pytorch_scheduler", "optax"}
"""Modules of libraries that hf_sched does not need."""


def missing(modules: Sequence[str]) -> dict[str, str]:
    """The optional ones among the modules that cannot be imported here, and why."""
    reasons = {}
    for module in OPTIONAL.intersection(modules):
        try:
            importlib.import_module(module)
        except Exception as error:  # an installation that does not fit its torch fails in ways of its own
            reasons[module] = f"{type(error).__name__}: {error}"
    return reasons


def check(contender: Contender, peaks: Sequence[float]) -> None:
    """Play a short run, so that no stub is timed.

    Raises:
        ValueError: The rates of a group are not those of a warmup to its own peak and a decay to 0.
    """
    optimizer, scheduler = contender.start(peaks, CHECKED_WARMUP, CHECKED_STEPS)
    played = []
    for _ in range(CHECKED_STEPS):
        scheduler.step()
        played.append([float(group["lr"]) for group in optimizer.param_groups])
    for number, (peak, rates) in enumerate(zip(peaks, zip(*played, strict=True), strict=True)):
        check_rates(f"{contender.name}, parameter group {number}", rates, peak)


def check_rates(name: str, rates: Sequence[float], peak: float) -> None:
    """See that learning rates change at nearly every step, reach the peak and end near 0.

    Raises:
        ValueError: They do not.
    """
    if len(set(rates)) < 0.8 * len(rates):  # on its way up a rate may be the same as one on its way down
        raise ValueError(f"{name}: {len(set(rates))} different learning rates in {len(rates)} steps")
    if not math.isclose(max(rates), peak, rel_tol=0.01):
        raise ValueError(f"{name}: the highest learning rate is {max(rates)!r} where the peak is {peak!r}")
    check_end(name, rates[-1], peak)


def check_end(name: str, rate: float, peak: float) -> None:
    """See that the last learning rate of a run is near 0.

    Raises:
        ValueError: It is not.
    """
    if not 0.0 <= rate <= 0.01 * peak:
        raise ValueError(f"{name}: the last learning rate is {rate!r} where the peak is {peak!r}")
