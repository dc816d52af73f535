"""Resuming a checkpoint of hf_sched under one of transformers' own schedules.

transformers loads any state into any scheduler, so a built-in schedule would silently take over ours. A built-in
scheduler is left untouched (and can be pickled) except while a checkpoint is being loaded:

- `remember_request` notes what the user requested when the Trainer creates the scheduler;
- `checked_loading` wraps the loading of a checkpoint. If the state is ours, it applies `on_resume`, or raises an
  error that shows the choices. Built-in schedules record no curve, so only `keep` and `replace` are possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hf_sched.scheduler.checkpoint_state import is_own_state, read_state
from hf_sched.scheduler.param_groups import set_rate
from hf_sched.scheduler.resume import CHOICES, OnResume, Saved
from hf_sched.scheduler.schedule_lr import ScheduleLR


class _Request(NamedTuple):
    name: str
    on_resume: OnResume | None
    num_training_steps: int


_requests: WeakKeyDictionary[LRScheduler, _Request] = WeakKeyDictionary()


def remember_request(scheduler: Any, name: str, on_resume: OnResume | None, num_training_steps: int) -> None:
    """Note the arguments of a built-in scheduler for a later `checked_loading`; any other object is ignored."""
    if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ScheduleLR):
        _requests[scheduler] = _Request(name, on_resume, num_training_steps)


@contextmanager
def checked_loading(scheduler: Any) -> Iterator[None]:
    """While a checkpoint is loaded, apply `on_resume` if the checkpoint is ours and the scheduler is built in.

    Raises:
        ValueError: The checkpoint is ours, and `on_resume` is not given or not possible.
    """
    request = _requests.get(scheduler) if isinstance(scheduler, LRScheduler) else None
    if request is None:
        yield
        return
    cls = type(scheduler)
    is_replaced = False

    def load_state_dict(self: LRScheduler, state: dict[str, Any]) -> None:
        nonlocal is_replaced
        if not is_own_state(state):
            cls.load_state_dict(self, state)
            return
        saved = read_state(state)
        choice = request.on_resume.choice if request.on_resume else None
        if choice == "keep" and saved.group_schedule is not None:
            _become_ours(self, saved, request)
            self.load_state_dict(state)
        elif choice == "replace" and isinstance(self, LambdaLR):
            is_replaced = True
            self.last_epoch, self._step_count = saved.step, saved.step + 1
        else:
            raise ValueError(_report(saved, self, request))

    # A subclass, because an attribute of the scheduler itself would be saved with its state.
    patched = type(cls.__name__, (cls,), {"load_state_dict": load_state_dict})
    scheduler.__class__ = patched
    try:
        yield
    finally:
        if type(scheduler) is patched:
            scheduler.__class__ = cls
    if is_replaced:  # only now, because DeepSpeed loads the optimizer after the scheduler
        _set_rates(scheduler)


def _become_ours(scheduler: LRScheduler, saved: Saved, request: _Request) -> None:
    """Turn the object itself into a `ScheduleLR`, because DeepSpeed holds a reference to it as well."""
    assert saved.group_schedule is not None
    optimizer = scheduler.optimizer
    scheduler.__class__ = ScheduleLR
    scheduler.__dict__.clear()
    assert isinstance(scheduler, ScheduleLR)
    scheduler.__init__(  # type: ignore[misc]
        optimizer, saved.group_schedule.schedule, name=saved.name, on_resume=request.on_resume
    )
    scheduler.run_steps = request.num_training_steps


def _rates_at(scheduler: LRScheduler, step: int) -> list[float] | None:
    """The learning rates of a built-in schedule at a step; None if it is not a function of the step."""
    if not isinstance(scheduler, LambdaLR):
        return None
    return [float(peak) * factor(step) for peak, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]


def _set_rates(scheduler: LambdaLR) -> None:
    rates = _rates_at(scheduler, scheduler.last_epoch) or []
    for group, rate, peak in zip(scheduler.optimizer.param_groups, rates, scheduler.base_lrs, strict=True):
        set_rate(group, rate)
        set_rate(group, float(peak), "initial_lr")
    scheduler._last_lr = [*rates]


def _report(saved: Saved, scheduler: LRScheduler, request: _Request) -> str:
    new = _rates_at(scheduler, saved.step)
    curve = saved.group_schedule.schedule if saved.group_schedule else "?"
    wanted = f" (`on_resume: {request.on_resume.choice}` needs a schedule of hf_sched)" if request.on_resume else ""
    return (
        f"the checkpoint, at step {saved.step}, was trained under {saved.name!r} of hf_sched ({curve}), but this run "
        f"requests transformers' {request.name!r}{wanted}.\n"
        "The learning rate of the next step for each `on_resume` in `lr_scheduler_kwargs`:\n"
        f"  keep     {saved.rates[0]:.6g}  {CHOICES['keep']}\n"
        f"  replace  {f'{new[0]:.6g}' if new else '-'}  {CHOICES['replace']}\n"
        "Or request the checkpoint's schedule, or another one of hf_sched, which can be joined without a jump."
    )
