"""Finds the likely cause of learning rates that are off the plan.

Each check computes the rates that one known mistake would give, and compares them with those that were used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from hf_sched.audit.planned import Array, Plan, Steps
from hf_sched.schedules import registry

_MOST_PROCESSES = 64
_MOST_WARMUP = 1000
# A guess is compared at few steps first, then at more. Whether it fits the rest of a long run changes nothing.
_PROBES = (6, 64)


@dataclass(frozen=True)
class Departure:
    """A plan that was not followed in the parameter groups of one name and peak."""

    plan: Plan
    group: int
    peak: float
    steps: Steps
    """Optimizer steps from 0, all those under the plan."""
    actual: Array
    start: int
    """The position in `steps` of the first one off the plan."""
    resumed_at: int | None
    """The step of a resume, or of a checkpoint, between the step before and that one."""
    other_plans: Sequence[Plan]

    @cached_property
    def tolerance(self) -> float:
        """The largest difference that counts as equal."""
        return 1e-6 * max(abs(self.peak), float(np.abs(self.actual).max()))

    @cached_property
    def is_varied(self) -> bool:
        """Whether the rates off the plan are enough to search many possibilities for one that fits."""
        return len(set(self.actual[self.start :][:1000].tolist())) > 2

    def rates(self, steps: Steps, plan: Plan | None = None) -> Array:
        """The rates of a plan; all NaN if it cannot be built or follows a metric."""
        plan = plan or self.plan
        peak = self.peak if plan.learning_rate == self.plan.learning_rate else None
        rates = None
        with suppress(ValueError, ArithmeticError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the plan is only a guess
            rates = plan.rates(steps, group=self.group, peak=peak)
        return np.full(len(steps), np.nan) if rates is None else rates

    def fits(
        self, plan: Plan | None = None, moved: Callable[[Steps], Steps] | None = None, *, whole: bool = False
    ) -> bool:
        """Whether a plan gives the rates off the plan (or all rates), each at its step or at another (`moved`)."""
        for number in _PROBES:
            at = np.unique(np.linspace(0 if whole else self.start, len(self.steps) - 1, number).astype(int))
            expected = self.rates(moved(self.steps[at]) if moved else self.steps[at], plan)
            is_known = ~np.isnan(expected)
            is_far = np.abs(expected - self.actual[at])[is_known] > self.tolerance
            if is_known.sum() < min(2, len(at)) or is_far.any():
                return False
        return True


def cause_of(departure: Departure) -> str | None:
    """The likely cause, as a sentence without a final period; None if no known cause gives these rates."""
    checks = (_deepspeed, _resume, _other_peak, _stepped_per_process, _other_horizon, _other_warmup, _other_schedule)
    return next((cause for check in checks if (cause := check(departure))), None)


def _deepspeed(at: Departure) -> str | None:
    return at.plan.deepspeed and (
        f"another schedule: the DeepSpeed configuration has a `scheduler` ({at.plan.deepspeed!r}), which replaces "
        "`lr_scheduler_type`; delete that block from the file"
    )


def _resume(at: Departure) -> str | None:
    where = f"the run was resumed at step {at.resumed_at or at.plan.first}"
    for plan in at.other_plans:
        if at.fits(plan):
            is_stale = len(at.steps) == at.start + 1
            happened = "its first step still had the rate of the old one" if is_stale else "the old one continued"
            return (
                f"{where} with another plan ({_differences(at.plan, plan)}), but {happened}: transformers' own "
                "schedules keep the checkpoint's state. A schedule of hf_sched takes `on_resume`"
            )
    resumed_at = at.resumed_at or 0
    if resumed_at and at.fits(moved=lambda steps: steps - resumed_at):
        return (
            f"{where}, but the schedule restarted from its first step: the checkpoint has no `scheduler.pt` or no "
            "`optimizer.pt` (`save_only_model: true` omits them)"
        )
    return None


def _other_peak(at: Departure) -> str | None:
    planned, actual = at.rates(at.steps[at.start :]), at.actual[at.start :]
    is_large = planned > at.tolerance
    ratios = actual[is_large] / planned[is_large]
    if len(ratios) < 3 or not ratios[0] or np.ptp(ratios) > 1e-6 * abs(ratios[0]):
        return None
    return (
        f"another peak: these are {_ratio(ratios[0])} times the planned rates, as if `learning_rate` were "
        f"{at.peak * ratios[0]:.6g}. A resume under transformers' own schedules keeps the checkpoint's peak (a "
        "schedule of hf_sched takes `on_resume: replace`); or the optimizer was built with another one"
    )


def _differences(new: Plan, old: Plan) -> str:
    pairs = {
        "lr_scheduler_type": (old.name, new.name),
        "lr_scheduler_kwargs": (dict(old.arguments), dict(new.arguments)),
        "learning_rate": (f"{old.learning_rate:.6g}", f"{new.learning_rate:.6g}"),
        "steps": (old.total, new.total),
        "warmup steps": (old.warmup, new.warmup),
    }
    return ", ".join(f"{name} {was} -> {now}" for name, (was, now) in pairs.items() if was != now)


def _stepped_per_process(at: Departure) -> str | None:
    if np.ptp(at.actual[at.start :]) <= at.tolerance:
        return None  # a periodic schedule has equal rates at some multiple
    first, begun = int(at.steps[at.start]), at.plan.first
    after = int(at.steps[at.start - 1]) if at.start else begun
    for times in range(2, _MOST_PROCESSES + 1):
        for start in dict.fromkeys([begun, *range(after, first + 1)][:100]):
            if at.fits(moved=lambda steps, n=times, s=start: s + n * (steps - s)):  # type: ignore[misc]
                since = f", from step {start + 1} on" if start > begun else ""
                often = "twice" if times == 2 else f"{times} times"
                return (
                    f"the scheduler was stepped {often} for each optimizer step{since}: "
                    "`accelerator.prepare(scheduler)` steps it once per process (use `hf_sched.prepare_scheduler`), a "
                    "loop may step it once per batch, and a callback or a `training_step` once more"
                )
    return None


def _other_horizon(at: Departure) -> str | None:
    for total in _horizons(at) if at.is_varied else ():
        if at.fits(at.plan.with_total(total), whole=True):
            return (
                f"another horizon: these are the rates of a run of {total} steps, {_ratio(total / at.plan.total)} "
                f"times the {at.plan.total} of this one. `num_training_steps` must be the optimizer steps of the whole "
                "run: not those of one epoch, not batches, not multiplied by the number of processes"
            )
    return None


def _horizons(at: Departure) -> Iterator[int]:
    """Multiples and divisors of the run's length, then the lengths that give the rate of one step."""
    total = at.plan.total
    multiples = [total * n for n in range(2, 65)] + [total // n for n in range(2, 65)]
    yield from dict.fromkeys(length for length in multiples if length > at.plan.warmup)
    for place in np.linspace(at.start, len(at.steps) - 1, 6).astype(int):
        step, rate = int(at.steps[place]), at.actual[place]
        # While a schedule decays, the rate of a step rises with the length of the run.
        low, high = max(step, at.plan.warmup) + 1, 100 * total
        while low < high:
            middle = (low + high) // 2
            found = at.rates(np.array([step]), at.plan.with_total(middle))[0]
            if np.isnan(found) or found >= rate - at.tolerance:
                high = middle
            else:
                low = middle + 1
        yield from (length for length in (low, low + 1) if length != total)


def _ratio(ratio: float) -> str:
    """A ratio as a short fraction (`1/2`) if it is one."""
    short = Fraction(ratio).limit_denominator(64)
    return str(short) if abs(float(short) - ratio) <= 1e-9 * ratio else f"{ratio:.6g}"


def _other_warmup(at: Departure) -> str | None:
    for warmup in range(min(at.plan.total, _MOST_WARMUP) if at.is_varied else 0):
        if warmup != at.plan.warmup and at.fits(replace(at.plan, warmup=warmup, group_schedule=None), whole=True):
            return f"another warmup: these are the rates with {warmup} steps of warmup, not {at.plan.warmup}"
    return None


def _other_schedule(at: Departure) -> str | None:
    for name in (*registry.BUILTIN_NAMES, *registry.available()) if at.is_varied else ():
        if name != at.plan.name and at.fits(replace(at.plan, name=name, arguments={}, group_schedule=None), whole=True):
            return (
                f"another schedule: these are the rates of {name!r}. It was passed to the Trainer (`optimizers=`), "
                "built by a subclass (`create_scheduler`), or came from another configuration"
            )
    return None
