"""For PyTorch Lightning: the result of `LightningModule.configure_optimizers`."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

from hf_sched.scheduler.resume import split_on_resume
from hf_sched.scheduler.schedule_lr import make_scheduler
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.validation import ArgumentError, StepUnits

_UNKNOWN_LENGTH = "neither the epochs nor the data have a length"


def lightning(module: Any, optimizer: Optimizer, name: str, warmup_steps: float = 0, **kwargs: Any) -> dict[str, Any]:
    """An optimizer with a schedule that counts optimizer steps, for `LightningModule.configure_optimizers`.

    Lightning steps a bare scheduler once per epoch. The length of the run is the Trainer's
    `estimated_stepping_batches`. The scheduler's state is part of Lightning's checkpoints.

    Args:
        module: The LightningModule, attached to its Trainer.
        optimizer: The learning rates of its groups are their peaks.
        name: As in `hf_sched.get_scheduler`, also with arguments (`"wsd:decay=30%"`).
        warmup_steps: Optimizer steps of warmup; below 1, a fraction of the run.
        **kwargs: The schedule's own arguments, and `on_resume`.

    Raises:
        ValueError: The name is unknown, an argument is invalid, or the Trainer needs `max_steps` because its epochs or
            its data have no length.

    Examples:
        >>> def configure_optimizers(self):
        ...     optimizer = torch.optim.AdamW(self.parameters(), lr=2e-5)
        ...     return hf_sched.lightning(self, optimizer, "wsd:decay=30%", warmup_steps=100)
    """
    trainer = module.trainer
    steps = trainer.estimated_stepping_batches  # also loads the data, if necessary
    if not 0 < steps < math.inf:
        raise ArgumentError("max_steps", "the Trainer's number of optimizer steps", trainer.max_steps, _UNKNOWN_LENGTH)
    batches = trainer.num_training_batches
    units = StepUnits(math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else None)
    plain_name, arguments = schedule_text.read(name, kwargs)
    length = registry.length_of(plain_name, split_on_resume(arguments)[1], steps, units) or steps
    warmup = math.ceil(length * warmup_steps) if warmup_steps < 1 else int(warmup_steps)
    scheduler = make_scheduler(name, optimizer, warmup, steps, kwargs, units=units)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
