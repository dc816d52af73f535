"""The catalogue compared with torch, transformers, optax and timm: equal to 1e-12 relative, in float64.

These libraries count steps differently. With a library's curve `ref(t)` that starts at t = 0, is at its peak at t = w
and ends at t = T, a run of N steps, W of them warmup, is

    LR(k) = ref(k + 1) with w = W and T = N, if there is a warmup,
    LR(k) = ref(k) with w = 0 and T = N - 1, if there is none.

Schedules that no library has are compared with their formulas. At the end, each line `From X: there -> here` of the
docstrings is run: the left side with library X, and the right side must give the same curve.
"""

from __future__ import annotations

import math
import os
import re
import types
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
import yaml
from torch.optim import lr_scheduler

import hf_sched
from hf_sched.reference.description import describe
from tests.helpers import timm_scheduler
from tests.helpers.catalog import CATALOGUE, build

PEAK = 3e-4
RATIO = 0.1
FLOOR = RATIO * PEAK

# Optimizer steps of the run, and of its warmup.
COLD = [(100, 0), (1001, 0)]
WARM = [(57, 30), (100, 20), (1000, 100)]
SHORT = [(2, 0), (3, 0), (2, 1), (3, 1), (100, 1), (100, 99)]
RUNS = COLD + WARM

Curve = Callable[[list[int]], Any]
"""The learning rates at some times `t`."""


class Case(NamedTuple):
    """A schedule of ours, and the curve that it is compared with."""

    name: str
    kwargs: dict[str, Any]
    of_warmup: Callable[[int], Mapping[str, Any]]
    """The arguments that depend on the length of the warmup."""
    reference: Callable[[int, int], Curve]
    """The curve for a warmup of w steps and an end at T."""
    runs: list[tuple[int, int]]
    stop: int | None
    """Where the comparison ends, as in a slice of the steps."""


CASES: list[Case] = []


def is_compared(name: str, runs: Any = RUNS, stop: Any = None, of_warmup: Any = lambda w: {}, **kwargs: Any) -> Any:
    """Compare a schedule with the curve that the decorated function returns."""

    def decorate(reference: Callable[[int, int], Curve]) -> Callable[[int, int], Curve]:
        CASES.append(Case(name, kwargs, of_warmup, reference, runs, stop))
        return reference

    return decorate


def assert_alike(ours: np.ndarray, theirs: object) -> None:
    # Near a floor of 0 the libraries have an absolute error, that of 1 + cos(x) or 1 - t / T: hence the `atol`.
    np.testing.assert_allclose(ours, np.asarray(theirs, dtype=np.float64), rtol=1e-12, atol=1e-15 * PEAK)


def sgd(peak: float = PEAK) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)


def of_torch(make: Callable[[Any], Any], peak: float = PEAK) -> Curve:
    """By the closed form: torch's `step` is recursive, and drifts."""
    optimizer = sgd(peak)
    scheduler = make(optimizer)

    def at(t: int) -> float:
        scheduler.last_epoch = t
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # get_lr wants to be called from `step`
            return getattr(scheduler, "_get_closed_form_lr", scheduler.get_lr)()[0]

    return lambda times: [at(t) for t in times]


def of_transformers(make: Callable[..., Any], *args: object, **kwargs: object) -> Curve:
    factor = make(sgd(), *args, **kwargs).lr_lambdas[0]
    return lambda times: [PEAK * factor(t) for t in times]


@cache
def timm() -> Any:
    try:
        return timm_scheduler.load()
    except ModuleNotFoundError as error:
        pytest.skip(f"needs {error.name}")


@cache
def optax() -> types.ModuleType:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    return optax


def of_optax(schedule: Callable[[Any], Any]) -> Curve:
    import jax

    # Always as many times: jax compiles again for every shape.
    return lambda times: np.asarray(jax.vmap(schedule)(np.arange(1100)))[times]


def optax_warmup(w: int, *schedules: Callable[[Any], Any], at: tuple[int, ...] = ()) -> Curve:
    """Optax schedules one after another, after a straight line to the peak; `at` are the times where they meet."""
    schedules = (optax().linear_schedule(0.0, PEAK, w), *schedules)[not w :]
    return of_optax(optax().join_schedules(schedules, [*([w] if w else []), *at]))


def after_a_warmup(w: int, curve: Curve) -> Curve:
    """A curve without a warmup, after a straight line from 0 to the peak."""
    return lambda times: [PEAK * t / w if t < w else curve([t - w])[0] for t in times]


def closed_form(formula: Callable[[int], float]) -> Curve:
    return lambda times: [formula(t) for t in times]


# Cosines.


@is_compared("cosine_floor", RUNS + SHORT, floor_ratio=RATIO)
@is_compared("cosine_floor", RUNS + SHORT, min_lr=FLOOR)
def torch_cosine_annealing(w, T):
    return after_a_warmup(w, of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, T - w, FLOOR)))


@is_compared("cosine_floor", RUNS + SHORT)
@is_compared("warmup_cosine", RUNS + SHORT, floor_ratio=RATIO, of_warmup=lambda w: {} if w else {"warmup": 0})
@is_compared("phases", phases="decay cosine; floor 0.1")
def transformers_cosine_with_min_lr(w, T):
    return of_transformers(transformers.get_cosine_with_min_lr_schedule_with_warmup, w, T, min_lr_rate=RATIO)


@is_compared("warmup_cosine", WARM, warmup_start_ratio=0.25, min_lr=FLOOR)
def optax_warmup_cosine_decay(w, T):
    return of_optax(optax().warmup_cosine_decay_schedule(0.25 * PEAK, PEAK, w, T, end_value=FLOOR))


@is_compared(
    "cosine_cyclic",
    [(101, 0), (701, 0), (140, 40), (1000, 100)],
    half_period=100,
    peak_multiplier=0.7,
    floor_ratio=RATIO,
)
def torch_cosine_annealing_with_falling_crests(w, T):
    # From one crest to the trough before and the one after it.
    tops = [of_torch(lambda o: lr_scheduler.CosineAnnealingLR(o, 100, FLOOR), PEAK * 0.7**i) for i in range(6)]
    return after_a_warmup(w, lambda times: [tops[(t + 99) // 200]([t])[0] for t in times])


@is_compared("cosine_constant", RUNS[:-1], decay=10, constant_ratio=0.2, anneal=5, anneal_shape="cosine")
def optax_cosine_constant_anneal(w, T):
    o = optax()
    parts = [o.cosine_decay_schedule(PEAK, D := 10 - (not w), alpha=0.2), o.constant_schedule(0.2 * PEAK)]
    return optax_warmup(w, *parts, o.cosine_decay_schedule(0.2 * PEAK, 5), at=(w + D, T - 5))


@is_compared("minimind", RUNS + SHORT)
def closed_form_of_minimind(w, T):
    # As in MiniMind's trainer/trainer_utils.py; a warmup is ours, and ends where it starts.
    def formula(t):
        if t < w:
            return 1.1 * PEAK * t / w
        return PEAK / 10 + 0.5 * PEAK * (1 + math.cos(math.pi * (t - w) / (T - w)))

    return closed_form(formula)


# Lines and powers.


@is_compared("linear_with_warmup", RUNS + SHORT)
@is_compared("lars_warmup", WARM, after="linear_with_warmup")  # the curve, where all trust ratios are 1
@is_compared("gradual_warmup", WARM, after="linear_with_warmup")
def transformers_linear(w, T):
    return of_transformers(transformers.get_linear_schedule_with_warmup, w, T)


@is_compared("polynomial_floor", RUNS + SHORT, power=2.5, min_lr=FLOOR)
def transformers_polynomial(w, T):
    return of_transformers(transformers.get_polynomial_decay_schedule_with_warmup, w, T, lr_end=FLOOR, power=2.5)


@is_compared("rex", RUNS + SHORT, floor_ratio=RATIO)
def closed_form_of_rex(w, T):
    def rex(t):
        z = t / (T - w)
        return PEAK * (RATIO + (1 - RATIO) * (1 - z) / (1 - z / 2))

    return after_a_warmup(w, closed_form(rex))


# Exponentials and stairs.


@is_compared("exponential", RUNS + SHORT, gamma=0.98)
@is_compared("exponential", decay_rate=-math.log(0.98))
def torch_exponential(w, T):
    return after_a_warmup(w, of_torch(lambda o: lr_scheduler.ExponentialLR(o, 0.98)))


@is_compared("exponential", RUNS + SHORT, floor_ratio=0.01)
def optax_exponential(w, T):
    return optax_warmup(w, optax().exponential_decay(PEAK, T - w, 0.01))


@is_compared("step", RUNS + SHORT, step_size=7, gamma=0.3)
def torch_step(w, T):
    return after_a_warmup(w, of_torch(lambda o: lr_scheduler.StepLR(o, 7, 0.3)))


def milestones(w):
    """Milestones 5, 9 and 20 steps after the peak; ours are counted from the first step of the run."""
    return {"milestones": [max(w - 1, 0) + m for m in (5, 9, 20)]}


@is_compared("multistep", of_warmup=milestones, gamma=0.3)
def torch_multistep(w, T):
    return after_a_warmup(w, of_torch(lambda o: lr_scheduler.MultiStepLR(o, [5, 9, 20], 0.3)))


# Stable phases, slow decays, warmups beyond the peak.

for shape in ("linear", "cosine", "1-sqrt"):

    @is_compared("wsd", decay=20, decay_shape=shape)
    def transformers_wsd(w, T, shape=shape):
        return of_transformers(transformers.get_wsd_schedule, w, 20, num_training_steps=T, decay_type=shape)


for ours, theirs in (("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", "1-sqrt"), ("exponential", "exp")):

    @is_compared("wsd", decay=20, decay_shape=ours, min_lr=FLOOR)
    def timm_wsd(w, T, theirs=theirs):
        decay = {"decay_t": 20, "lr_min": FLOOR, "decay_fn": theirs, "decay_ratio": 0.01}
        scheduler = timm().WSDLRScheduler(sgd(), t_initial=T - w, warmup_t=w, t_in_epochs=False, **decay)
        return lambda times: [scheduler._get_lr(t)[0] for t in times]


@is_compared("inverse_sqrt_cooldown", WARM, stop=-15, cooldown=15)  # by default the time scale is the warmup
@is_compared("inverse_sqrt_cooldown", WARM, stop=-15, cooldown=15, of_warmup=lambda w: {"timescale": w})
def transformers_inverse_sqrt(w, T):
    return of_transformers(transformers.get_inverse_sqrt_schedule, w)


@is_compared("inverse_sqrt_cooldown", timescale=12, cooldown=15, floor_ratio=0.01)
def closed_form_with_the_cooldown(w, T):
    def formula(t):
        if t <= T - w - 15:
            return math.sqrt(12 / (12 + t))
        return 0.01 + (formula(T - w - 15) - 0.01) * (T - w - t) / 15

    return after_a_warmup(w, closed_form(lambda t: PEAK * formula(t)))


@is_compared("one_cycle", WARM, start_ratio=0.04, final_ratio=4e-6)
def torch_one_cycle(w, T):
    # Its final_div_factor divides the start, not the peak, and each of its phases ends one step early.
    return of_torch(
        lambda o: lr_scheduler.OneCycleLR(o, PEAK, total_steps=T + 1, pct_start=(w + 1) / (T + 1), cycle_momentum=False)
    )


@is_compared("gradual_warmup", WARM, multiplier=8, after="cosine_floor", after_kwargs={"floor_ratio": RATIO})
@is_compared("gradual_warmup", WARM, multiplier=8, after="cosine_floor", after_kwargs={"min_lr": FLOOR})
def optax_climb_beyond_the_peak(w, T):
    parts = [optax().linear_schedule(PEAK, 8 * PEAK, w), optax().cosine_decay_schedule(8 * PEAK, T - w, RATIO / 8)]
    return of_optax(optax().join_schedules(parts, [w]))


EACH = [
    pytest.param(case, *run, id=f"{case.name}-{case.reference.__name__}-{run[0]}-{run[1]}")
    for case in CASES
    for run in case.runs
]


@pytest.mark.parametrize(("case", "steps", "warmup"), EACH)
def test_a_schedule_equals_the_curve_of_another_library(case, steps, warmup):
    schedule = build(case.name, warmup, steps, **case.kwargs, **case.of_warmup(warmup))
    curve = case.reference(warmup, steps if warmup else steps - 1)
    times = range(1, steps + 1) if warmup else range(steps)
    assert_alike(schedule.curve(peak=PEAK)[: case.stop], curve(list(times[: case.stop])))


def test_every_schedule_of_the_catalogue_has_a_parity_test():
    assert {case.name for case in CASES} == {*CATALOGUE} - {"cosine_restarts"}  # compared below


def cycle_lengths(schedule: hf_sched.Schedule) -> list[int]:
    """The steps of each restart cycle, a rewarmup counted in."""
    starts = [segment.first for segment in schedule.segments if segment.kind in ("restart", "warmup")]
    return [after - before for before, after in pairwise([0, *starts, schedule.num_training_steps])]


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 1.3, 2.0, 3.0])
@pytest.mark.parametrize("num_cycles", [1, 2, 5])
@pytest.mark.parametrize("steps", [301, 1000])
def test_each_restart_cycle_is_torchs_cosine_annealing(steps, num_cycles, multiplier):
    kwargs = {"num_cycles": num_cycles, "cycle_multiplier": multiplier, "peak_multiplier": 0.9, "floor_ratio": RATIO}
    schedule = build("cosine_restarts", steps=steps, **kwargs)
    ours, lengths = schedule.curve(peak=PEAK), cycle_lengths(schedule)
    assert len(lengths) == num_cycles
    for i, n in enumerate(lengths):
        theirs = of_torch(lambda o, n=n: lr_scheduler.CosineAnnealingLR(o, n - 1, FLOOR), PEAK * 0.9**i)
        assert_alike(ours[sum(lengths[:i]) :][:n], theirs(list(range(n))))


def test_restarts_with_a_warmup_in_each_cycle_are_optaxs_sgdr():
    schedule = build("cosine_restarts", 10, 310, num_cycles=3, rewarmup=7, peak_multiplier=0.8, floor_ratio=RATIO)
    lengths = cycle_lengths(schedule)[1:]  # the run's warmup is counted in
    first, *others = [
        {"init_value": FLOOR, "peak_value": PEAK * 0.8**i, "warmup_steps": 7, "decay_steps": n, "end_value": FLOOR}
        for i, n in enumerate(lengths)
    ]
    first |= {"init_value": 0.0, "warmup_steps": 10}
    theirs = of_optax(optax().sgdr_schedule([first, *others]))
    assert_alike(schedule.curve(peak=PEAK), theirs(list(range(1, 311))))


def test_optax_computes_in_float64():
    # By default it does not, which would limit the comparison to seven digits.
    assert np.asarray(of_optax(optax().linear_schedule(0.0, 0.1, 3))([1])).dtype == np.float64


# The translations in the docstrings.

STEPS, WARMUP = 901, 61

LINES = [
    pytest.param(name, line, id=f"{name}-{line.there}") for name in CATALOGUE for line in describe(name).coming_from
]
# The steps of the run and of its warmup, if they matter, by our name and the first word of the left side.
RUN_OF = {
    ("cosine_restarts", "CosineAnnealingWarmRestarts"): (700, 0),  # three whole cycles
    ("cosine_restarts", "CosineLRScheduler"): (700, 0),
}
# The part of the run that is equal, if not all of it is.
PARTS = {
    ("wsd", "warmup_stable_decay"): slice(WARMUP, None),  # its min_lr_ratio raises the warmup
    ("inverse_sqrt_cooldown", "inverse_sqrt"): slice(None, -1),  # ours ends on the floor
}
# They start the warmup or end a cycle one step away from ours.
A_STEP_APART = {
    ("cosine_restarts", "CosineAnnealingWarmRestarts"),
    ("cosine_restarts", "cosine_with_restarts"),
    ("cosine_restarts", "CosineLRScheduler"),
    ("one_cycle", "OneCycleLR"),
}


def of_library(library: str, there: str, symbols: dict[str, Any]) -> list[float]:
    """The learning rates that the left side of a line `From library: there -> here` gives, step by step."""
    if library == "optax":
        return list(of_optax(eval(there, vars(optax()) | symbols))(list(range(symbols["N"] + 1))))
    optimizer = sgd()
    if library == "timm":
        classes = {
            name: partial(made, optimizer, t_in_epochs=False) for name, made in vars(timm()).items() if "LR" in name
        }
        scheduler = eval(there, classes | symbols)
        return [scheduler._get_lr(t)[0] for t in range(symbols["N"] + 1)]
    if library == "torch":
        names = {name: partial(getattr(lr_scheduler, name), optimizer) for name in lr_scheduler.__all__}
        scheduler = eval(there, names | symbols)
    else:
        name, *kwargs = yaml.safe_load(f"[{there}]")
        scheduler = transformers.get_scheduler(name, optimizer, symbols["W"], symbols["N"], *kwargs)
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(symbols["N"]):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize(("name", "line"), LINES)
def test_the_translation_from_another_library_gives_its_curve(name, line):
    assert line.library in ("torch", "transformers", "timm", "optax")
    key = (name, re.split(r"\W", line.there)[0])
    has_warmup = line.library == "transformers" or re.search(r"\bW\b", line.there)
    steps, warmup = RUN_OF.get(key, (STEPS, WARMUP if has_warmup else 0))
    symbols = {"peak": PEAK, "N": steps, "W": warmup, "T": steps - warmup if warmup else steps - 1}
    kwargs = {
        argument: symbols.get(value, value) if isinstance(value, str) else value
        for argument, value in yaml.safe_load(line.here).items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = of_library(line.library, line.there, symbols)
    trainers = 0 if "warmup" in kwargs else warmup
    schedule = build(name, trainers, steps, **kwargs)
    ahead = schedule.segments[0].kind == "warmup" and key not in A_STEP_APART
    part = PARTS.get(key, slice(None))
    np.testing.assert_allclose(
        schedule.curve(peak=PEAK)[part],
        np.asarray(theirs[ahead : steps + ahead])[part],
        rtol=1e-9,
        atol=(0.02 if key in A_STEP_APART else 1e-9) * PEAK,
    )
