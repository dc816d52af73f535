"""Finds the likely cause of learning rates that are off the plan.

Each check yields the causes of one kind of mistake, and whether the rates that it would give are those that were used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hf_sched.audit.planned import Array, Plan, Steps
from hf_sched.schedules import registry

Guesses = Iterator[tuple[bool, str]]

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
    """The step of a resume between the step before and that one."""
    other_plans: Sequence[Plan]

    @cached_property
    def tolerance(self) -> float:
        """The largest difference that counts as equal."""
        return 1e-6 * max(abs(self.peak), float(np.abs(self.actual).max()))

    def rates(self, steps: Steps, plan: Plan) -> Array:
        """The rates of a plan; all NaN if it cannot be built or follows a metric."""
        peak = self.peak if plan.learning_rate == self.plan.learning_rate else None
        rates = None
        with suppress(ValueError, ArithmeticError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the plan is only a guess
            rates = plan.rates(steps, group=self.group, peak=peak)
        return np.full(len(steps), np.nan) if rates is None else rates

    def fits(self, plan: Plan, moved: Callable[[Steps], Steps] = np.copy, first: int | None = None) -> bool:
        """Whether a plan gives the rates off the plan (or those from `first` on), each at its step or a `moved` one."""
        for number in _PROBES:
            at = np.unique(np.linspace(self.start if first is None else first, len(self.steps) - 1, number).astype(int))
            expected = self.rates(moved(self.steps[at]), plan)
            is_known = ~np.isnan(expected)
            is_far = np.abs(expected - self.actual[at])[is_known] > self.tolerance
            if is_known.sum() < min(2, len(at)) or is_far.any():
                return False
        return True


def cause_of(departure: Departure) -> str | None:
    """The likely cause, as a sentence without a final period; None if no known cause gives these rates."""
    checks = (_deepspeed, _resume, _other_peak, _stepped_per_process, _other_plan)
    return next((cause for check in checks for fits, cause in check(departure) if fits), None)


def _deepspeed(at: Departure) -> Guesses:
    yield (
        at.plan.deepspeed is not None,
        f"another schedule: the DeepSpeed configuration has a `scheduler` ({at.plan.deepspeed!r}), which replaces "
        "`lr_scheduler_type`; delete that block from the file",
    )


def _resume(at: Departure) -> Guesses:
    where = f"the run was resumed at step {at.resumed_at or at.plan.first}"
    for old in at.other_plans:
        yield (
            at.fits(old),
            f"{where} with another plan, but these are still the rates of the old one ({old}): transformers' own "
            "schedules keep the checkpoint's state. A schedule of hf_sched takes `on_resume`",
        )
    if resumed_at := at.resumed_at:
        yield (
            at.fits(at.plan, lambda steps: steps - resumed_at),
            f"{where}, but the schedule restarted from its first step: the checkpoint has no `scheduler.pt` or no "
            "`optimizer.pt` (`save_only_model: true` omits them)",
        )


def _other_peak(at: Departure) -> Guesses:
    planned, actual = at.rates(at.steps[at.start :], at.plan), at.actual[at.start :]
    is_large = planned > at.tolerance
    ratios = actual[is_large] / planned[is_large]
    if len(ratios) >= 3:
        yield (
            bool(ratios[0] and np.ptp(ratios) <= 1e-6 * abs(ratios[0])),
            f"another peak: these are {ratios[0]:.6g} times the planned rates, as if `learning_rate` were "
            f"{at.peak * ratios[0]:.6g}. A resume under transformers' own schedules keeps the checkpoint's peak (a "
            "schedule of hf_sched takes `on_resume: replace`); or the optimizer was built with another one",
        )


def _stepped_per_process(at: Departure) -> Guesses:
    if np.ptp(at.actual[at.start :]) <= at.tolerance:
        return  # a periodic schedule has equal rates at some multiple
    first, begun = int(at.steps[at.start]), at.plan.first
    before = int(at.steps[at.start - 1]) if at.start else begun
    for times in range(2, _MOST_PROCESSES + 1):
        for start in dict.fromkeys([begun, *range(before, first + 1)][:100]):
            often = "twice" if times == 2 else f"{times} times"
            yield (
                at.fits(at.plan, lambda steps, n=times, s=start: s + n * (steps - s)),  # type: ignore[misc]
                f"the scheduler was stepped {often} for each optimizer step"
                f"{f', from step {start + 1} on' if start > begun else ''}: "
                "`accelerator.prepare(scheduler)` steps it once per process (use `hf_sched.prepare_scheduler`), a "
                "loop may step it once per batch, and a callback or a `training_step` once more",
            )


def _other_plan(at: Departure) -> Guesses:
    if len(set(at.actual[at.start :][:1000].tolist())) < 3:
        return  # so few rates fit many plans
    total = at.plan.total
    for length in _horizons(at):
        yield (
            at.fits(at.plan.changed(total=length), first=0),
            f"another horizon: these are the rates of a run of {length} steps, {length / total:.6g} times the {total} "
            "of this one. `num_training_steps` must be the optimizer steps of the whole run: not those of one epoch, "
            "not batches, not multiplied by the number of processes",
        )
    for warmup in range(min(total, _MOST_WARMUP)):
        yield (
            at.fits(at.plan.changed(warmup=warmup), first=0),
            f"another warmup: these are the rates with {warmup} steps of warmup, not {at.plan.warmup}",
        )
    for name in sorted({*registry.BUILTIN_NAMES, *registry.available()} - {at.plan.name}):
        yield (
            at.fits(at.plan.changed(name=name, arguments={}), first=0),
            f"another schedule: these are the rates of {name!r}. It was passed to the Trainer (`optimizers=`), built "
            "by a subclass (`create_scheduler`), or came from another configuration",
        )


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
            found = at.rates(np.array([step]), at.plan.changed(total=middle))[0]
            if np.isnan(found) or found >= rate - at.tolerance:
                high = middle
            else:
                low = middle + 1
        yield from (low, low + 1)
