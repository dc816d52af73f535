"""Resuming one of our checkpoints under a schedule of transformers' own, which takes it for one of its own.

transformers loads any state into any scheduler. Its own schedules write down no curve, so that what they would do
next can be shown, and done, but no transition made: for that the new schedule must be one of ours.
"""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hf_sched.scheduler.checkpoint_state import read_state
from hf_sched.scheduler.resume import OnResume, Saved
from hf_sched.scheduler.schedule_lr import ScheduleLR


def watch_loading(scheduler: Any, name: str, on_resume: OnResume | None, num_training_steps: int) -> None:
    """Let a built-in scheduler of a Trainer refuse states that are not its own, unless it is said what to do."""
    if isinstance(scheduler, ScheduleLR) or not isinstance(scheduler, LRScheduler):
        # Ours, passed to the Trainer (`optimizers=`) or made by a subclass, looks to its states itself; where DeepSpeed
        # steps the schedule, the Trainer holds a wrapper of one that has been here before.
        return
    cls = type(scheduler)

    def load_state_dict(self: LRScheduler, state: dict[str, Any]) -> None:
        if "format" not in state or "schedule" not in state:
            scheduler.__class__ = cls  # as transformers made it, so that it can be pickled
            scheduler.load_state_dict(state)
            return
        saved = read_state(state)
        if on_resume is not None and on_resume.choice == "keep" and saved.group_schedule is not None:
            _become_ours(scheduler, saved, on_resume, num_training_steps)
            scheduler.load_state_dict(state)
        elif on_resume is not None and on_resume.choice == "replace" and isinstance(scheduler, LambdaLR):
            _jump_to(scheduler, saved.step)
            type(scheduler).set_rates = _set_rates  # type: ignore[attr-defined]
        else:
            raise ValueError(_report(saved, scheduler, name, on_resume))

    # A class of the same name, since what is set on the scheduler itself would be saved with its state.
    scheduler.__class__ = type(cls.__name__, (cls,), {"load_state_dict": load_state_dict})


def _become_ours(scheduler: LRScheduler, saved: Saved, on_resume: OnResume, num_training_steps: int) -> None:
    """Turn the scheduler itself into ours: others than the Trainer hold it too (DeepSpeed steps its own reference)."""
    assert saved.group_schedule is not None
    optimizer = scheduler.optimizer
    scheduler.__class__ = ScheduleLR
    scheduler.__dict__.clear()
    ScheduleLR.__init__(scheduler, optimizer, saved.group_schedule.schedule, name=saved.name, on_resume=on_resume)  # type: ignore[arg-type]
    scheduler.run_steps = num_training_steps  # type: ignore[attr-defined]


def _rates_at(scheduler: LRScheduler, step: int) -> list[float] | None:
    """The learning rates of a built-in schedule at a step; None if it does not say."""
    if not isinstance(scheduler, LambdaLR):
        return None
    return [float(peak) * factor(step) for peak, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]


def _jump_to(scheduler: LambdaLR, step: int) -> None:
    scheduler.last_epoch, scheduler._step_count = step, step + 1
    _set_rates(scheduler)


def _set_rates(scheduler: LambdaLR) -> None:
    rates = _rates_at(scheduler, scheduler.last_epoch) or []
    for group, rate, peak in zip(scheduler.optimizer.param_groups, rates, scheduler.base_lrs, strict=True):
        group["lr"], group["initial_lr"] = rate, float(peak)
    scheduler._last_lr = [*rates]


def _report(saved: Saved, scheduler: LRScheduler, name: str, on_resume: OnResume | None) -> str:
    replaced = _rates_at(scheduler, saved.step)
    curve = saved.group_schedule.schedule if saved.group_schedule else "?"
    wanted = f" (`on_resume: {on_resume.choice}` needs a schedule of hf_sched)" if on_resume else ""
    return (
        f"the checkpoint, at step {saved.step}, was trained under {saved.name!r} of hf_sched ({curve}), but this run "
        f"asks for transformers' {name!r}{wanted}.\nThe learning rate of the next step, by what `on_resume` in "
        f"`lr_scheduler_kwargs` says:\n  keep     {saved.rates[0]:.6g}  the checkpoint's curve and peaks go on\n"
        f"  replace  {f'{replaced[0]:.6g}' if replaced else '-'}  the new curve, from this step on\n"
        "Or ask for the schedule of the checkpoint, or for another of hf_sched, which can be joined without a jump."
    )
