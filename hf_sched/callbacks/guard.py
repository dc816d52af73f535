"""A guard in the Trainer: a run with one of our names trains on the curve that was requested, or stops and says why."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import TrainerCallback

from hf_sched.integrations.deepspeed import check_no_scheduler_block
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.scheduler.schedule_lr import ScheduleLR
from hf_sched.schedules import registry
from hf_sched.schedules.validation import EpochsUnknown

# How many learning rates are worked out at once.
_LOOK_AHEAD = 4096


class LearningRateGuard(TrainerCallback):
    """Compares plan and optimizer: before the first step who sets the learning rate, at each step what it is.

    hf_sched adds it to every Trainer. It does nothing where `lr_scheduler_type` is not one of our names.

    Raises:
        ValueError: Something else than the schedule requested sets the learning rate, has changed it, or steps the
            schedule more than once, or less; or processes have different ones.
    """

    def __init__(self) -> None:
        self.scheduler: ScheduleLR | None = None
        self._stepped_by_deepspeed = False
        self._skipped = 0
        """Optimizer steps that the optimizer says it skipped, also those that the checkpoint tells of."""
        self._ahead: npt.NDArray[np.float64] | None = None
        """The rates of the steps from `_first` on, of `_course`, of shape (groups, steps)."""
        self._course: GroupSchedule | None = None
        self._first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Check that the scheduler in force is the one requested, here and on all processes."""
        self.scheduler = None
        found = getattr(lr_scheduler, "scheduler", lr_scheduler)  # Accelerate may have wrapped it
        if state.global_step and isinstance(found, ScheduleLR):  # DeepSpeed loads the optimizer after the schedule
            found.set_rates()
        planned = state.max_steps
        if (
            isinstance(found, ScheduleLR) and found.group_schedule.cooldown is not None
        ):  # the checkpoint's run was told to
            state.max_steps = min(planned, found.group_schedule.cooldown.end)
        name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
        if name not in registry.available():
            return
        if not isinstance(found, ScheduleLR):
            check_no_scheduler_block(args, name)
            raise ValueError(
                f"`lr_scheduler_type` asks for {name!r}, but the learning rate is set by a {type(found).__name__}: it "
                "was passed to the Trainer (`optimizers=`) or made by a subclass (`create_scheduler`). Leave that out, "
                "or name it in `lr_scheduler_type`"
            )
        if state.global_step and not found.resumed:
            raise ValueError(
                f"the run goes on at step {state.global_step}, but the schedule {name!r} would start again from step "
                "0: the checkpoint has no `scheduler.pt` or no `optimizer.pt` (`save_only_model: true` leaves them "
                "out). Resume from a whole one, or start a new run from its weights, without `resume_from_checkpoint`"
            )
        if found.requested.num_training_steps != planned:
            raise ValueError(
                f"the schedule {name!r} in force ends after {found.requested.num_training_steps} steps, but the run has "
                f"{planned}: whoever made it (a subclass, or `optimizers=`) must give `num_training_steps` in "
                "optimizer steps of the whole run"
            )
        with suppress(EpochsUnknown):
            _, arguments = split_on_resume(args.lr_scheduler_kwargs)
            requested = registry.entry(name).build(planned, args.get_warmup_steps(planned), arguments)
            if requested != found.requested:
                raise ValueError(
                    f"`lr_scheduler_type` {name!r} asks for the curve\n    {requested}\nbut the scheduler in force plays\n"
                    f"    {found.requested}\nIt was made by a subclass, or passed in as `optimizers=`: leave that out"
                )
        _check_all_processes_agree(found)
        self.scheduler = found
        self._stepped_by_deepspeed = type(lr_scheduler).__name__ == "DeepSpeedSchedulerWrapper"
        self._skipped = max(state.global_step - found.last_epoch, 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Check it here under DeepSpeed's own optimizer, which makes its step, and the schedule's, in `backward`."""
        if self._stepped_by_deepspeed:
            self._check(state, optimizer)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Check that the optimizer is about to train at the schedule's rate."""
        if not self._stepped_by_deepspeed:
            self._check(state, optimizer)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Count the steps that a gradient scaler skipped."""
        self._skipped += bool(getattr(optimizer, "step_was_skipped", False))

    def _check(self, state: Any, optimizer: Any) -> None:
        scheduler = self.scheduler
        if scheduler is None or optimizer is None:
            return
        if scheduler.last_epoch > state.global_step:
            raise ValueError(
                f"after {state.global_step} optimizer steps the schedule {scheduler.name!r} has made "
                f"{scheduler.last_epoch}: something steps it twice (`accelerator.prepare(scheduler)`, a callback, or "
                "`lr_scheduler.step()` in a `training_step` of your own)"
            )
        if scheduler.last_epoch < state.global_step - self._skipped:
            skips = f"a gradient scaler skipped {self._skipped}" if self._skipped else "no gradient scaler skipped any"
            raise ValueError(
                f"after {state.global_step} optimizer steps the schedule {scheduler.name!r} has made "
                f"{scheduler.last_epoch}, and {skips}: something keeps it from being stepped, or has set it back (a "
                "callback, a subclass with a training loop of its own)"
            )
        for number, (group, rate) in enumerate(zip(optimizer.param_groups, self._planned(scheduler), strict=False)):
            used = group["lr"]
            if used != (used.new_tensor(rate) if isinstance(used, torch.Tensor) else rate):
                raise ValueError(
                    f"optimizer step {state.global_step}: parameter group {number} is about to train at a learning "
                    f"rate of {float(used)!r}, but the schedule {scheduler.name!r} has {rate!r} there: something else "
                    "sets it (another scheduler, a callback, the optimizer's own)"
                )

    def _planned(self, scheduler: ScheduleLR) -> list[float]:
        """The rate of each group at the schedule's step; worked out for many steps at once, since that is as quick."""
        step, group_schedule = scheduler.last_epoch, scheduler.group_schedule
        if (
            self._ahead is None
            or group_schedule is not self._course
            or not 0 <= step - self._first < self._ahead.shape[1]
        ):
            self._course, self._first = group_schedule, step
            self._ahead = group_schedule.rates(step, step + max(_LOOK_AHEAD // len(group_schedule.peaks), 1))
        rates: list[float] = self._ahead[:, step - self._first].tolist()
        return rates

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say so if the curve was not finished."""
        scheduler, self.scheduler = self.scheduler, None
        if scheduler is None or state.global_step < state.max_steps:
            return
        missed = min(state.global_step - scheduler.last_epoch, self._skipped)
        # Those before a cooldown that the run was told of do not shorten that.
        if missed > 0 and scheduler.last_epoch < scheduler.schedule.num_training_steps:
            ended, wanted = (
                scheduler.group_schedule.rates(k, k + 1)[0, 0] for k in (scheduler.last_epoch - 1, state.max_steps - 1)
            )
            warnings.warn(
                f"a gradient scaler skipped {missed} of {state.max_steps} optimizer steps, so that the schedule "
                f"{scheduler.name!r} fell short: it ended at a learning rate of {ended:.6g}, not {wanted:.6g}",
                UserWarning,
                stacklevel=2,
            )


def _check_all_processes_agree(scheduler: ScheduleLR) -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    mine = (scheduler.group_schedule, scheduler.last_epoch)
    everybodys: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everybodys, mine)
    others = [rank for rank, theirs in enumerate(everybodys) if theirs != everybodys[0]]
    if others:
        raise ValueError(
            f"processes have different learning rates: rank 0 is at step {everybodys[0][1]} of\n    "
            f"{everybodys[0][0].schedule}\nrank {others[0]} at step {everybodys[others[0]][1]} of\n    "
            f"{everybodys[others[0]][0].schedule}\nGive all of them the same arguments"
        )
