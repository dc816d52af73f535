"""Finds the likely cause of learning rates that are off the plan.

Each check yields the causes of one kind of mistake, and whether the rates that it would give are those that were used.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
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
_PROBES = (4, 32)


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

    def fits(self, plan: Plan, moved: Callable[[Steps], Steps] = np.copy) -> bool:
        """Whether a plan gives the actual rates, each at its step or a `moved` one."""
        for number in _PROBES:
            last = len(self.steps) - 1
            at = np.unique(np.r_[np.linspace(0, last, number), np.geomspace(1, last + 1, number) - 1].astype(int))
            expected = self.rates(moved(self.steps[at]), plan)
            is_known = ~np.isnan(expected)
            is_far = np.abs(expected - self.actual[at])[is_known] > self.tolerance
            if is_known.sum() < min(2, len(at)) or is_far.any():
                return False
        return True


def cause_of(departure: Departure) -> str | None:
    """The likely cause, as a sentence without a final period; None if no known cause gives these rates."""
    checks = (_resume, _stepped_per_process, _other_plan)
    return next((cause for check in checks for fits, cause in check(departure) if fits), None)


def _resume(at: Departure) -> Guesses:
    first = at.plan.first
    where = f"the run was resumed at step {first}"
    for old in at.other_plans:
        yield (
            at.fits(old),
            f"{where} with another plan, but these are still the rates of the old one ({old}): transformers' own "
            "schedules keep the checkpoint's state; use one of hf_sched with `on_resume`",
        )
    if first:
        yield (
            at.fits(at.plan, lambda steps: steps - first),
            f"{where}, but the schedule restarted from its first step: the checkpoint has no `scheduler.pt` or no "
            "`optimizer.pt` (`save_only_model: true` omits them)",
        )


def _stepped_per_process(at: Departure) -> Guesses:
    if np.ptp(at.actual[at.start :]) <= at.tolerance:
        return  # a periodic schedule has equal rates at some multiple
    start = at.plan.first
    for times in range(2, _MOST_PROCESSES + 1):
        yield (
            at.fits(at.plan, lambda steps, n=times: start + n * (steps - start)),  # type: ignore[misc]
            f"the scheduler was stepped {'twice' if times == 2 else f'{times} times'} for each optimizer step: "
            "`accelerator.prepare(scheduler)` steps it once per process (use `hf_sched.prepare_scheduler`), a "
            "loop may step it once per batch, and a callback or a `training_step` once more",
        )


def _other_plan(at: Departure) -> Guesses:
    if len(set(at.actual[at.start :][:1000].tolist())) < 3:
        return  # so few rates fit many plans
    total = at.plan.total
    for length in _horizons(at):
        yield (
            at.fits(at.plan.changed(total=length)),
            f"another horizon: these are the rates of a run of {length} steps, {length / total:.6g} times the {total} "
            "of this one. `num_training_steps` must be the optimizer steps of the whole run: not those of one epoch, "
            "not batches, not multiplied by the number of processes",
        )
    for warmup in range(min(total, _MOST_WARMUP)):
        yield (
            at.fits(at.plan.changed(warmup=warmup)),
            f"another warmup: these are the rates with {warmup} steps of warmup, not {at.plan.warmup}",
        )
    for name in sorted({*registry.BUILTIN_NAMES, *registry.available()} - {at.plan.name}):
        yield (
            at.fits(at.plan.changed(name=name, arguments={})),
            f"another schedule: these are the rates of {name!r}. It was passed to the Trainer (`optimizers=`), built "
            "by a subclass (`create_scheduler`), or came from another configuration",
        )


def _horizons(at: Departure) -> Iterator[int]:
    """Multiples of the run's length, then the lengths that give the rate of one step, at some steps."""
    yield from (at.plan.total * times for times in range(2, 65))
    for place in at.start - 1 + np.geomspace(1, len(at.steps) - at.start, 12).astype(int):
        step = at.steps[[place]]
        lengths = range(max(int(step[0]), at.plan.warmup) + 1, 100 * at.plan.total)

        def rate(length: int, step: Steps = step) -> float:
            return float(at.rates(step, at.plan.changed(total=length))[0])

        # While a schedule decays, the rate of a step rises with the length of the run.
        found = lengths.start + bisect_left(lengths, at.actual[place] - at.tolerance, key=rate)
        yield from (found, found + 1)
