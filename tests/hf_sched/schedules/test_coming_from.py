"""What the docstrings say to somebody who comes from another library is true.

Of each `From X: there -> here` the left side is run with library X; the right side must make the same curve. Where
there is a warmup we are one step ahead, see test_parity.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from torch.optim import lr_scheduler

import hf_sched
from hf_sched.reference import description as reference
from hf_sched.schedules import registry
from tests.hf_sched.schedules.test_parity import of_optax, optax, timm_schedulers

PEAK, STEPS, WARMUP = 3e-4, 901, 61

LINES = [
    pytest.param(name, line, id=f"{name}-{line.library}-{number}")
    for name in hf_sched.available()
    if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog"
    for number, line in enumerate(reference.describe(name).coming_from)
]

# What follows is by our name and the first word of the left side.

# How long the run and its warmup are, where it matters.
RUNS = {
    ("cosine_restarts", "CosineAnnealingWarmRestarts"): (700, 0),  # three whole cycles
    ("cosine_restarts", "CosineLRScheduler"): (700, 0),
    ("cosine_restarts", "sgdr_schedule"): (WARMUP + 300, WARMUP),
}
# The part of the run that is the same, where not all of it is.
PARTS = {
    ("wsd", "warmup_stable_decay"): slice(WARMUP, None),  # its min_lr_ratio raises the warmup
    ("inverse_sqrt_cooldown", "inverse_sqrt"): slice(None, -1),  # ours ends on the floor
}
# They count as we do: step 0 is one step up the warmup.
COUNT_AS_WE_DO = {("cosine_floor", "cosine_warmup_with_min_lr")}
# They begin to climb, or end a cycle, a step away from where we do.
A_STEP_APART = {
    ("cosine_restarts", "CosineAnnealingWarmRestarts"),
    ("cosine_restarts", "cosine_with_restarts"),
    ("cosine_restarts", "CosineLRScheduler"),
    ("one_cycle", "OneCycleLR"),
    ("warmup_cosine", "cosine_warmup_with_min_lr"),
}

Symbols = dict[str, Any]


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)


def played(optimizer: torch.optim.Optimizer, scheduler: Any, count: int) -> list[float]:
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(count - 1):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def in_torch(there: str, symbols: Symbols) -> list[float]:
    optimizer = sgd()
    names = {name: partial(getattr(lr_scheduler, name), optimizer) for name in lr_scheduler.__all__}
    return played(optimizer, eval(there, names | symbols), symbols["N"] + 1)


def in_transformers(there: str, symbols: Symbols) -> list[float]:
    name, *kwargs = yaml.safe_load(f"[{there}]")
    optimizer = sgd()
    scheduler = transformers.get_scheduler(name, optimizer, symbols["W"], symbols["N"], *kwargs)
    return played(optimizer, scheduler, symbols["N"] + 1)


def in_timm(there: str, symbols: Symbols) -> list[float]:
    timm = timm_schedulers()
    names = {name: partial(getattr(timm, name), sgd(), t_in_epochs=False) for name in vars(timm) if "LR" in name}
    scheduler = eval(there, names | symbols)
    return [scheduler._get_lr(t)[0] for t in range(symbols["N"] + 1)]


def in_optax(there: str, symbols: Symbols) -> list[float]:
    return list(of_optax(eval(there, vars(optax()) | symbols))(list(range(symbols["N"] + 1))))


def in_minimind(there: str, symbols: Symbols) -> list[float]:
    names = {"math": math, "lr": PEAK, "total_steps": symbols["T"]}
    return [eval(there, names | {"current_step": t}) for t in range(symbols["T"] + 1)]


def in_gradual_warmup(there: str, symbols: Symbols) -> list[float]:
    """What that library means to do; it trains one step at the wrong peak, between warmup and the rest."""

    def make(multiplier: float, total_epoch: int, after_scheduler: Callable[[int], float]) -> list[float]:
        rise = [1 + (multiplier - 1) * t / total_epoch for t in range(total_epoch)]
        return [PEAK * x for x in [*rise, *(multiplier * after_scheduler(t) for t in range(symbols["T"] + 1))]]

    def cosine(steps: int) -> Callable[[int], float]:
        return lambda t: (1 + math.cos(math.pi * t / steps)) / 2

    return eval(there, {"GradualWarmupScheduler": make, "CosineAnnealingLR": cosine} | symbols)


LIBRARIES: dict[str, Callable[[str, Symbols], list[float]]] = {
    "torch": in_torch,
    "transformers": in_transformers,
    "timm": in_timm,
    "optax": in_optax,
    "MiniMind": in_minimind,
    "pytorch-gradual-warmup-lr": in_gradual_warmup,
}


@pytest.mark.parametrize(("name", "line"), LINES)
def test_it_is_the_same_curve(name, line):
    assert line.library in LIBRARIES, f"how is the left side of `From {line.library}: ...` to be run?"
    key = (name, re.split(r"\W", line.there)[0])
    has_warmup = line.library == "transformers" or re.search(r"\bW\b", line.there)
    steps, warmup = RUNS.get(key, (STEPS, WARMUP if has_warmup else 0))
    symbols = {"peak": PEAK, "N": steps, "W": warmup, "T": steps - warmup if warmup else steps - 1}
    kwargs = {
        argument: symbols.get(value, value) if isinstance(value, str) else value
        for argument, value in yaml.safe_load(line.here).items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LIBRARIES[line.library](line.there, symbols)
    trainers = 0 if "warmup" in kwargs else warmup
    schedule = hf_sched.build(name, num_training_steps=steps, num_warmup_steps=trainers, **kwargs)
    ahead = schedule.segments[0].kind == "warmup" and key not in A_STEP_APART | COUNT_AS_WE_DO
    part = PARTS.get(key, slice(None))
    np.testing.assert_allclose(
        schedule.curve(peak=PEAK)[part],
        np.asarray(theirs[ahead : steps + ahead])[part],
        rtol=1e-9,
        atol=(0.02 if key in A_STEP_APART else 1e-9) * PEAK,
    )
