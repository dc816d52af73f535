"""Why a run's learning rates are not those that were planned: the plan misread in each of the ways that are known.

Each guess says what the rates would be if it were so; the first one that gives those that were used is the cause.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hf_sched.audit.run_plan import Plan, share_text
from hf_sched.schedules import registry

Array = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

_MOST_TIMES = 64
_MOST_SHIFT = 100
# A guess is tried on so many steps before it is on all.
_PROBES = 6


@dataclass(frozen=True)
class Departure:
    """A stretch of steps that did not train at the planned rates."""

    plan: Plan
    group: int
    peak: float
    steps: Steps
    """From 0, the ones that rates are known of."""
    actual: Array
    first: int
    """The first of them that is off the plan."""
    after: int
    """The last step before it that rates are known of and that is on it; -1 if there is none."""
    begun: int
    """The step from which the plan is in force."""
    resumed_at: int | None
    """The step of a resume, or of a checkpoint, if it departed there."""
    other_plans: Sequence[Plan]

    @property
    def close(self) -> float:
        """The difference that counts as none."""
        return 1e-6 * max(abs(self.peak), float(np.abs(self.actual).max()))

    def rates(self, steps: Steps, plan: Plan | None = None) -> Array | None:
        """What a plan gives at steps; None if it cannot be made."""
        plan = plan or self.plan
        peak = self.peak if plan.learning_rate == self.plan.learning_rate else None
        with suppress(ValueError, ArithmeticError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is only a guess
            return plan.rates(steps, group=self.group, peak=peak)
        return None

    def fits(self, guess: Array | None) -> bool:
        """Whether a guess gives the rates that were used; where it gives none (NaN) it need not."""
        if guess is None:
            return False
        known = ~np.isnan(guess)
        return bool(known.sum() >= min(2, len(guess)) and (np.abs(guess - self.actual)[known] <= self.close).all())

    def agrees(self, moved: Callable[[Steps], Steps] = lambda steps: steps, plan: Plan | None = None) -> bool:
        """Whether a plan gives the rates that were used, each at another step; a few are looked at before all are."""
        return all(at.fits(at.rates(moved(at.steps), plan)) for at in (self._sample, self))

    @cached_property
    def _sample(self) -> Departure:
        some = np.unique(np.linspace(0, len(self.steps) - 1, _PROBES).astype(int))
        return replace(self, steps=self.steps[some], actual=self.actual[some])

    @property
    def few(self) -> bool:
        """Whether there is too little to search through many possibilities for one that fits."""
        return len(set(self.actual.tolist())) < 3


def cause_of(departure: Departure) -> str | None:
    """The likely cause, as a sentence without a full stop; None if none of the known ones gives these rates."""
    for guess in (
        _of_deepspeed,
        _stale,
        _stuck,
        _restarted,
        _other_plan,
        _stepped_otherwise,
        _shifted,
        _other_peak,
        _other_horizon,
        _other_warmup,
        _other_schedule,
    ):
        if cause := guess(departure):
            return cause
    return None


def _of_deepspeed(at: Departure) -> str | None:
    if at.plan.facts.get("deepspeed"):
        return (
            f"the DeepSpeed configuration has a `scheduler` of its own ({at.plan.facts['deepspeed']!r}), which wins "
            "over `lr_scheduler_type`: delete that block from the file"
        )
    return None


def _stale(at: Departure) -> str | None:
    if at.resumed_at is None or len(at.steps) > 1:
        return None
    for plan in at.other_plans:
        if at.fits(at.rates(at.steps, plan)):
            return (
                f"the run was resumed at step {at.resumed_at} with another plan ({_differences(at.plan, plan)}), and "
                "the first step after it still had the old one's rate: transformers' own schedules set theirs only "
                "behind it. A schedule of hf_sched takes `on_resume`"
            )
    return None


def _stuck(at: Departure) -> str | None:
    level = at.actual[0]
    if len(at.actual) < 3 or (np.abs(at.actual - level) > at.close).any():
        return None
    planned = at.rates(at.steps)
    if planned is None or np.ptp(planned) <= at.close:
        return None  # a constant on another level
    before = at.rates(np.arange(max(at.after, 0), at.first + 1))
    if before is not None and (np.abs(before - level) <= at.close).any():
        since = "at all" if at.after <= at.begun else f"any more from step {at.after + 1} on"
        return (
            f"the learning rate stays at {level:.6g}: the scheduler was not stepped {since} (or a callback, or another "
            "scheduler, holds the rate)"
        )
    return f"the learning rate stays at {level:.6g}: something else than the schedule set it"


def _restarted(at: Departure) -> str | None:
    if at.resumed_at is None or not at.fits(at.rates(at.steps - at.resumed_at)):
        return None
    return (
        f"the run was resumed at step {at.resumed_at}, but the schedule began again from its first step: the "
        "checkpoint has no `scheduler.pt` or no `optimizer.pt` (`save_only_model: true` leaves them out)"
    )


def _other_plan(at: Departure) -> str | None:
    for plan in at.other_plans:
        if at.fits(at.rates(at.steps, plan)):
            where = f" at step {at.begun}" if at.begun else ""
            return (
                f"the run was resumed{where} with another plan ({_differences(at.plan, plan)}), but the old one went "
                "on: transformers' own schedules keep what the checkpoint says. One of hf_sched takes `on_resume`"
            )
    # The peak is in the checkpoint, the length and the name are not.
    for plan in at.other_plans:
        if plan.learning_rate != at.plan.learning_rate:
            scaled = at.rates(at.steps)
            if scaled is not None and at.fits(scaled * (plan.learning_rate / at.plan.learning_rate)):
                return (
                    f"the run was resumed at step {at.begun} with `learning_rate` {at.plan.learning_rate:.6g}, but "
                    f"that of the checkpoint, {plan.learning_rate:.6g}, went on: transformers' own schedules take "
                    "their peak from it. A schedule of hf_sched takes `on_resume: replace`"
                )
    return None


def _differences(new: Plan, old: Plan) -> str:
    pairs = {
        "lr_scheduler_type": (old.name, new.name),
        "lr_scheduler_kwargs": (dict(old.arguments), dict(new.arguments)),
        "learning_rate": (f"{old.learning_rate:.6g}", f"{new.learning_rate:.6g}"),
        "steps": (old.total, new.total),
        "warmup steps": (old.warmup, new.warmup),
    }
    return ", ".join(f"{name} {was} -> {now}" for name, (was, now) in pairs.items() if was != now)


def _starts(at: Departure) -> Iterator[int]:
    """The steps since which the scheduler may have been stepped otherwise."""
    yield from dict.fromkeys([at.begun, at.begun - 1, *range(max(at.after, at.begun), at.first + 1)][:1000])


def _stepped_otherwise(at: Departure) -> str | None:
    for times in range(2, _MOST_TIMES + 1):
        for start in _starts(at):
            if at.agrees(lambda steps, n=times, s=start: s + n * (steps - s)):  # type: ignore[misc]
                return _stepped_often(at, times, start)
    if at.few:
        return None
    for times in range(2, _MOST_TIMES + 1):
        for start in _starts(at):
            if at.agrees(lambda steps, n=times, s=start: s + (steps - s) // n):  # type: ignore[misc]
                return (
                    f"the scheduler was stepped only once in {times} optimizer steps{_since(at, start)}: something "
                    "else than the Trainer steps it"
                )
    return None


def _stepped_often(at: Departure, times: int, start: int) -> str:
    if times == at.plan.facts.get("accumulation"):
        who = (
            "as many as `gradient_accumulation_steps`: it is stepped for each batch, where it should be for each "
            "optimizer step"
        )
    elif times == at.plan.facts.get("processes"):
        who = "as many as there are processes: `accelerator.prepare(scheduler)` does that"
    else:
        who = (
            "`accelerator.prepare(scheduler)` does that with as many processes (use `hf_sched.prepare_scheduler`), and "
            "so does a callback or a `training_step` that steps it, too"
        )
    much = "twice" if times == 2 else f"{times} times"
    return f"the scheduler was stepped {much} for each optimizer step{_since(at, start)}: {who}"


def _since(at: Departure, start: int) -> str:
    return f", from step {max(start, 0) + 1} on" if start > at.begun else ""


def _shifted(at: Departure) -> str | None:
    for shift in sorted(range(-_MOST_SHIFT, _MOST_SHIFT + 1), key=abs):
        # Steps that were left out one after another show as smaller shifts first.
        tail = replace(at, steps=at.steps[abs(shift) - 1 :], actual=at.actual[abs(shift) - 1 :])
        moved = tail.steps + shift
        if shift == 0 or len(moved) < 2 or moved[0] < 0 or not tail.agrees(lambda steps, n=shift: steps + n):  # type: ignore[misc]
            continue
        if np.ptp(tail.actual) <= at.close:
            continue
        many = f"{abs(shift)} step{'s' * (abs(shift) > 1)}"
        if at.first == at.begun == 0:
            why = "stepped before the first step" if shift > 0 else "not at step 0 when the run was"
            return f"the scheduler is {many} {'ahead' if shift > 0 else 'behind'}: it was {why}"
        gap = at.after + 1, at.first + 1
        where = f"after step {gap[0]}" if gap[1] - gap[0] <= 1 else f"between steps {gap[0]} and {gap[1]}"
        if shift > 0:
            return f"the scheduler made {many} too many {where}, and is ahead by them since: something else stepped it"
        return (
            f"the scheduler made {many} too few {where}, and is behind by them since: a gradient scaler (fp16) skipped "
            "them, or the scheduler's state is that of an earlier checkpoint"
        )
    return None


def _other_peak(at: Departure) -> str | None:
    planned = at.rates(at.steps)
    if planned is None or len(at.steps) < 3:
        return None
    some = planned > at.close
    if some.sum() < 3:
        return None
    ratios = at.actual[some] / planned[some]
    if np.ptp(ratios) > 1e-6 * abs(ratios[0]) or not at.fits(planned * ratios[0]):
        return None
    ratio = float(ratios[0])
    return (
        f"another peak: these are {share_text(ratio)} times the plan's rates, so that the peak is "
        f"{at.peak * ratio:.6g}, not {at.peak:.6g}: the learning rate of another run (a checkpoint's), one that the "
        "optimizer was made with, or a callback that scales it"
    )


def _other_horizon(at: Departure) -> str | None:
    if at.few:
        return None
    for total in _lengths(at):
        if at.agrees(plan=at.plan.with_total(total)):
            return (
                f"another horizon: these are the rates of a run of {total} steps, {share_text(total / at.plan.total)} "
                f"times the {at.plan.total} of this one. `num_training_steps` is to be the optimizer steps of the "
                "whole run: not those of one epoch, not batches, not times the number of processes"
            )
    return None


def _lengths(at: Departure) -> Iterator[int]:
    """The likely ones, then those that give the rate of one of a few steps."""
    total = at.plan.total
    ratios = [total * n for n in range(2, 65)] + [total // n for n in range(2, 65)]
    yield from dict.fromkeys(length for length in ratios if length > at.plan.warmup)
    for step, rate in zip(at._sample.steps.tolist(), at._sample.actual.tolist(), strict=True):
        # While it decays, a step's rate is the higher the longer the run.
        low, high = max(step, at.plan.warmup) + 1, 100 * total
        while low < high:
            middle = (low + high) // 2
            found = at.rates(np.array([step]), at.plan.with_total(middle))
            if found is None or found[0] >= rate - at.close:
                high = middle
            else:
                low = middle + 1
        yield from (length for length in (low, low + 1) if length != total)


def _other_warmup(at: Departure) -> str | None:
    if at.few:
        return None
    for warmup in range(min(at.plan.total - 1, 1_000)):
        plan = replace(at.plan, warmup=warmup, group_schedule=None)
        if warmup != at.plan.warmup and at.agrees(plan=plan):
            return f"another warmup: these are the rates with {warmup} steps of it, not {at.plan.warmup}"
    return None


def _other_schedule(at: Departure) -> str | None:
    if at.few:
        return None
    for name in (*registry.BUILTIN_NAMES, *registry.available()):
        plan = replace(at.plan, name=name, arguments={}, group_schedule=None)
        if name != at.plan.name and at.agrees(plan=plan):
            return (
                f"another schedule: these are the rates of {name!r}. It was passed to the Trainer (`optimizers=`), "
                "made by a subclass (`create_scheduler`), or came from another configuration"
            )
    return None
