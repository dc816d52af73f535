"""The torch scheduler that plays a `Schedule` on the parameter groups of an optimizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hf_sched import registry
from hf_sched.registry import BUILTIN_NAMES
from hf_sched.schedule import Schedule

STATE_FORMAT = 1


class ScheduleLR(LRScheduler):
    """Sets the learning rate of every parameter group to the schedule's, with the group's own peak and floor.

    Construct it before the first optimizer step; call `step()` after each. The peaks are the groups' learning rates at
    construction (`initial_lr`).

    Args:
        optimizer: The optimizer whose `param_groups` are set.
        schedule: The curve.
        name: What the schedule is called in messages and checkpoints.
        last_epoch: The optimizer step to start at, less one; as in torch.

    Raises:
        ValueError: The floor is above the peak of a parameter group; the message names the group.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Schedule, *, name: str = "schedule", last_epoch: int = -1
    ) -> None:
        self.schedule = schedule
        self.name = name
        peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self._floors = [_floor_of_group(schedule, number, peak) for number, peak in enumerate(peaks)]
        super().__init__(optimizer, last_epoch)
        self.base_lrs = [*peaks]  # plain numbers, where torch would keep tensors

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at optimizer step `last_epoch`."""
        step = max(self.last_epoch, 0)
        return [
            self.schedule.value(step, float(peak), floor)
            for peak, floor in zip(self.base_lrs, self._floors, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists only, so that `torch.load(..., weights_only=True)` reads it."""
        return {
            "format": STATE_FORMAT,
            "name": self.name,
            "schedule": str(self.schedule),
            "num_training_steps": self.schedule.num_training_steps,
            "base_lrs": [float(peak) for peak in self.base_lrs],
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": [float(lr) for lr in self._last_lr],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint of the same schedule stopped.

        Raises:
            ValueError: The checkpoint was written under another curve or other peak learning rates. Going on would
                train on a curve that
                nobody asked for.
        """
        mine = self.state_dict()
        if state_dict.get("format") != STATE_FORMAT:
            raise ValueError(
                f"the checkpoint's scheduler state was not written by hf_sched (format {STATE_FORMAT}), but this run "
                f"asks for {self.name!r}. {_WAYS_OUT}"
            )
        changed = [
            f"{what} was {state_dict.get(key)!r}, now {mine[key]!r}"
            for key, what in (("name", "name"), ("schedule", "curve"), ("base_lrs", "peak learning rates"))
            if state_dict.get(key) != mine[key]
        ]
        if changed:
            raise ValueError(f"the checkpoint was written under another schedule: {'; '.join(changed)}. {_WAYS_OUT}")
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        self._last_lr = list(state_dict["_last_lr"])


_WAYS_OUT = (
    "Resume with the arguments that the checkpoint was written with (schedule and its arguments, learning rate, "
    "warmup and number of steps), or start a new run from the checkpoint's weights, without `resume_from_checkpoint`."
)


def get_scheduler(
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
) -> LRScheduler:
    """As `transformers.get_scheduler`, for the names of hf_sched; transformers' own names are passed on to it.

    Args:
        name: One of `available()`, or of transformers' names.
        optimizer: The optimizer; the learning rates of its groups are their peaks.
        num_warmup_steps: Optimizer steps of warmup; None is 0.
        num_training_steps: Optimizer steps of the run.
        scheduler_specific_kwargs: The schedule's own arguments.

    Raises:
        ValueError: The name is unknown or an argument does not fit.
    """
    plain_name = getattr(name, "value", name)
    if plain_name in registry.available():
        return make_scheduler(
            plain_name, optimizer, num_warmup_steps, num_training_steps, **(scheduler_specific_kwargs or {})
        )
    if plain_name not in BUILTIN_NAMES:
        raise ValueError(registry.unknown_name(plain_name))
    import transformers

    scheduler: LRScheduler = transformers.get_scheduler(
        plain_name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs
    )
    return scheduler


def make_scheduler(
    schedule_name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    last_epoch: int = -1,
    **kwargs: Any,
) -> ScheduleLR:
    """One of our schedules on an optimizer, called as transformers calls the functions of its own table."""
    schedule = registry.entry(schedule_name).build(num_training_steps, num_warmup_steps or 0, kwargs)
    return ScheduleLR(optimizer, schedule, name=schedule_name, last_epoch=last_epoch)


def _floor_of_group(schedule: Schedule, number: int, peak: float) -> float:
    try:
        return schedule.floor(peak)
    except ValueError as error:
        raise ValueError(f"parameter group {number}: {error}") from None
