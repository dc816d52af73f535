"""Resuming a checkpoint of hf_sched under one of transformers' own schedules.

transformers loads any state into any scheduler, so a built-in schedule would silently take over one of ours. Built-in
schedules record no curve, so there is no transition between the two: only `keep` and `replace` are possible.
"""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hf_sched.scheduler.param_groups import set_rate
from hf_sched.scheduler.resume import CHOICES, OnResume, Saved, ScheduleChanged, is_own_state, numbers_text
from hf_sched.scheduler.schedule_lr import ScheduleLR


def check_next_load(scheduler: Any, name: str, on_resume: OnResume | None) -> None:
    """Check the next state that a built-in scheduler loads; call this only if a checkpoint will be loaded.

    If the state is ours, `on_resume` is applied; loading raises a ValueError that shows the choices if it is not given
    or not possible. Loading also restores the scheduler's class; a pickle of it has that class in any case.
    """
    if isinstance(scheduler, ScheduleLR) or not isinstance(scheduler, LRScheduler):
        # Ours checks its states itself. DeepSpeed's wrapper holds a scheduler that has been here before.
        return
    cls = type(scheduler)

    def load_state_dict(self: Any, state: dict[str, Any]) -> None:
        self.__class__ = cls
        if not is_own_state(state):
            self.load_state_dict(state)
            return
        saved = Saved.read(state)
        choice = on_resume.choice if on_resume else None
        if choice == "keep" and saved.group_schedule is not None:
            # The object itself becomes ours, because DeepSpeed holds a reference to it as well.
            optimizer, self.__class__ = self.optimizer, ScheduleLR
            self.__dict__.clear()
            self.__init__(optimizer, saved.group_schedule.schedule, name=saved.name, on_resume=on_resume)
            self.load_state_dict(state)
        elif choice == "replace" and isinstance(self, LambdaLR):
            self.last_epoch = saved.step
            restore_rates(self, on_resume)
        else:
            raise _changed(saved, self, name)

    def reduce(self: Any, protocol: int) -> tuple[Any, ...]:
        return object.__new__, (cls,), self.__dict__

    # A subclass of the same name, because an attribute of the scheduler itself would be saved with its state.
    methods = {"load_state_dict": load_state_dict, "__reduce_ex__": reduce}
    scheduler.__class__ = type(cls.__name__, (cls,), methods)


def restore_rates(scheduler: Any, on_resume: OnResume | None) -> None:
    """Set the learning rates of a resumed scheduler again; DeepSpeed loads the optimizer after the scheduler."""
    if isinstance(scheduler, ScheduleLR):
        scheduler.set_rates()
    elif on_resume is not None and isinstance(scheduler, LambdaLR):
        rates = _rates_at(scheduler, scheduler.last_epoch)
        for group, rate, peak in zip(scheduler.optimizer.param_groups, rates, scheduler.base_lrs, strict=True):
            set_rate(group, rate)
            set_rate(group, float(peak), "initial_lr")
        scheduler.load_state_dict({**scheduler.state_dict(), "_last_lr": [*rates]})


def _rates_at(scheduler: LambdaLR, step: int) -> list[float]:
    return [float(peak) * factor(step) for peak, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]


def _changed(saved: Saved, scheduler: LRScheduler, name: str) -> ScheduleChanged:
    new = numbers_text(_rates_at(scheduler, saved.step)) if isinstance(scheduler, LambdaLR) else "unknown"
    message = (
        f"the checkpoint, at step {saved.step}, was trained under another schedule: {saved.name} of hf_sched, not "
        f"{name} of transformers. `on_resume` in `lr_scheduler_kwargs` must be `keep` (next learning rate "
        f"{numbers_text(saved.rates)}) or `replace` (next learning rate {new}); or start a new run from the "
        "checkpoint's weights, without `resume_from_checkpoint`"
    )
    changes = [("", "checkpoint", "this run"), ("schedule", saved.name, name)]
    rates = {"keep": numbers_text(saved.rates), "replace": new}
    return ScheduleChanged(message, changes, [(choice, rate, CHOICES[choice]) for choice, rate in rates.items()])
