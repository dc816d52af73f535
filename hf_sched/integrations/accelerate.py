"""For training loops of one's own with Accelerate: a scheduler that makes one step with each optimizer step.

`accelerator.prepare(scheduler)` steps it once for every process with each optimizer step, unless `split_batches` is
set: it takes the scheduler's steps for those of one process. Ours counts optimizer steps, which are the same on any
number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.lr_scheduler import LRScheduler

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.scheduler import AcceleratedScheduler


def prepare_scheduler(scheduler: LRScheduler, accelerator: Accelerator) -> AcceleratedScheduler:
    """Prepare a scheduler that counts optimizer steps; instead of `accelerator.prepare(scheduler)`.

    Call its `step()` after each `optimizer.step()`. It then makes a step whenever the optimizer did: not while
    gradients are accumulated, not where a gradient scaler skipped the step, and once on any number of processes,
    whatever `split_batches` and `step_scheduler_with_optimizer` are. `accelerator.save_state` saves it.

    Args:
        scheduler: Made for the optimizer, with `num_training_steps` in optimizer steps of the run.
        accelerator: It must have prepared the optimizer.

    Raises:
        ValueError: The scheduler is prepared already, or its optimizer is not.
    """
    from accelerate.scheduler import AcceleratedScheduler

    if isinstance(scheduler, AcceleratedScheduler) or not isinstance(scheduler, LRScheduler):
        raise ValueError(
            f"`scheduler` must be a scheduler of torch that is not prepared yet, received {type(scheduler).__name__}: "
            "leave it out of `accelerator.prepare`"
        )
    optimizers = [o for o in accelerator._optimizers if scheduler.optimizer in (o, o.optimizer)]
    if not optimizers:
        raise ValueError(
            "`scheduler` is on an optimizer that `accelerator` has not prepared: prepare the optimizer first (with "
            "DeepSpeed, also make the scheduler on what `accelerator.prepare` gave back)"
        )
    # With `split_batches` it makes one step at a time, which is what is meant here on any number of processes.
    prepared = AcceleratedScheduler(scheduler, optimizers, step_with_optimizer=True, split_batches=True)
    prepared._is_accelerate_prepared = True
    accelerator._schedulers.append(prepared)
    return prepared
