"""For training loops with Accelerate: a scheduler that makes one step per optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import LRScheduler

from hf_sched.schedules.validation import ArgumentError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.scheduler import AcceleratedScheduler


def prepare_scheduler(scheduler: LRScheduler, accelerator: Accelerator) -> AcceleratedScheduler:
    """Prepare a scheduler that counts optimizer steps.

    `accelerator.prepare(scheduler)` would step it once per process at each optimizer step, unless `split_batches` is
    set. Call `step()` after each `optimizer.step()`: it steps whenever the optimizer did, so not while gradients are
    accumulated, and not when a gradient scaler skipped the step. `accelerator.save_state` saves it.

        scheduler = hf_sched.get_scheduler("cosine_floor", optimizer, 100, 10_000)
        scheduler = hf_sched.prepare_scheduler(scheduler, accelerator)

    Args:
        scheduler: Made for the optimizer, with `num_training_steps` in optimizer steps of the run.
        accelerator: Must have prepared the optimizer.

    Raises:
        ArgumentError: The scheduler is already prepared, or its optimizer is not.
    """
    from accelerate.scheduler import AcceleratedScheduler

    if isinstance(scheduler, AcceleratedScheduler) or not isinstance(scheduler, LRScheduler):
        allowed = f"a torch scheduler that is not prepared yet, received {type(scheduler).__name__}"
        raise ArgumentError("scheduler", allowed, hint="omit it from `accelerator.prepare`")
    optimizers = [o for o in accelerator._optimizers if scheduler.optimizer in (o, o.optimizer)]
    if not optimizers:
        hint = "prepare the optimizer first (with DeepSpeed, also make the scheduler for the prepared optimizer)"
        raise ArgumentError("scheduler", rule="belongs to an optimizer that `accelerator` has not prepared", hint=hint)
    # `split_batches` makes it take one step at a time, on any number of processes.
    prepared = AcceleratedScheduler(scheduler, optimizers, step_with_optimizer=True, split_batches=True)
    prepared._is_accelerate_prepared = True
    accelerator._schedulers.append(prepared)
    return prepared
