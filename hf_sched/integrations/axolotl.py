"""For axolotl: a plugin that makes the scheduler in `create_lr_scheduler`, axolotl's hook for that.

plugins:
  - hf_sched.integrations.axolotl.SchedulePlugin
lr_scheduler: wsd:decay=30%,floor_ratio=0.1
"""

from __future__ import annotations

from typing import Any

from axolotl.integrations.base import BasePlugin
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hf_sched.integrations.transformers_trainer import step_units
from hf_sched.scheduler.resume import read_schedule
from hf_sched.scheduler.schedule_lr import make_scheduler
from hf_sched.schedules import registry


class SchedulePlugin(BasePlugin):  # type: ignore[misc]
    """Makes the scheduler if `lr_scheduler` names a schedule of hf_sched; axolotl makes the others."""

    def create_lr_scheduler(
        self, cfg: Any, trainer: Any, optimizer: Optimizer, num_training_steps: int
    ) -> LRScheduler | None:
        name, arguments = read_schedule(trainer.args)
        if name not in registry.available():
            return None
        run = (trainer.args.get_warmup_steps(num_training_steps), num_training_steps, arguments)
        return make_scheduler(name, optimizer, *run, units=step_units.get())
