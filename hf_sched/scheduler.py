"""The torch scheduler that plays a `Schedule` on the parameter groups of an optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, _param_groups_val_list, _update_param_group_val

from hf_sched import lars, registry
from hf_sched.checkpoint_format_1 import from_format_1
from hf_sched.registry import BUILTIN_NAMES
from hf_sched.schedule import Schedule

STATE_FORMAT = 2

# How many learning rates are worked out at once, for the steps to come: many, since an array of them costs hardly more
# than one, and few enough that the pause does not show.
_LOOK_AHEAD = 16384


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
        ValueError: The floor is above the peak of a parameter group; the message names the group. Or the schedule asks
            for trust ratios (`lars`), which this optimizer cannot give.
    """

    def __init__(
        self, optimizer: Optimizer, schedule: Schedule, *, name: str = "schedule", last_epoch: int = -1
    ) -> None:
        self.schedule = schedule
        self.name = name
        trust = lars.prepare(optimizer, schedule)
        peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        floors = [_floor_of_group(schedule, number, peak) for number, peak in enumerate(peaks)]
        self._peaks, self._floors = np.array(peaks), np.array(floors)
        self._size = len(peaks)
        self._alike = len(set(zip(peaks, floors, strict=True))) == 1
        self._groups: list[dict[str, Any]] | None = None
        super().__init__(optimizer, last_epoch)
        self.base_lrs = [*peaks]  # plain numbers, where torch keeps tensors
        if trust:
            trust.attach(self)

    def step(self, epoch: int | None = None) -> None:
        # Torch's own `step` keeps more books than it sets rates. After its first calls, in which it watches for a wrong
        # order, all that is left to do is to take the next rates from those worked out ahead.
        groups = self.optimizer.param_groups
        if groups is not self._groups or len(groups) != self._size or epoch is not None:
            self._step_with_care(epoch)
            return
        try:
            rates = self._upcoming.pop()
        except IndexError:
            rates = self._look_ahead()
        if self._alike:
            for group in groups:
                group["lr"] = rates
        else:
            for group, rate in zip(groups, rates):  # noqa: B905 (as many, see above; `strict` costs time)
                group["lr"] = rate

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at optimizer step `last_epoch`."""
        step = max(self.last_epoch, 0)
        rates: list[float | Tensor] = self.schedule.rates(step, step + 1, self._peaks, self._floors)[:, 0].tolist()
        return rates

    @property
    def last_epoch(self) -> int:
        """The optimizer step whose learning rates are set, counted from 0."""
        return self._behind - len(self._upcoming) - 1

    @last_epoch.setter
    def last_epoch(self, step: int) -> None:
        count = self._step_count if hasattr(self, "_behind") else 0  # how often it stepped is another matter
        # The rates worked out ahead are those of the steps before `_behind`, the next one last.
        self._upcoming: list[Any] = []
        self._behind = step + 1
        self._step_count = count

    @property
    def _step_count(self) -> int:
        return self.last_epoch + self._steps_before

    @_step_count.setter
    def _step_count(self, count: int) -> None:
        self._steps_before = count - self.last_epoch

    @property
    def _last_lr(self) -> list[float | Tensor]:
        return _param_groups_val_list(self.optimizer, "lr")

    @_last_lr.setter
    def _last_lr(self, rates: list[float | Tensor]) -> None:
        """Torch's `step` sets them, from the groups, where they are read."""

    def _look_ahead(self) -> Any:
        """Work out the rates of the steps to come, one number each where all groups are alike; gives the next ones."""
        step = self._behind
        stop = step + max(_LOOK_AHEAD // (1 if self._alike else self._size), 1)
        if step < self.schedule.num_training_steps:
            stop = min(stop, self.schedule.num_training_steps)
        groups = slice(0, 1) if self._alike else slice(None)
        rates = self.schedule.rates(step, stop, self._peaks[groups], self._floors[groups])
        self._upcoming = (rates[0, ::-1] if self._alike else rates.T[::-1]).tolist()
        self._behind = stop
        return self._upcoming.pop()

    def _step_with_care(self, epoch: int | None) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != self._size:
            raise ValueError(
                f"the optimizer now has {len(groups)} parameter groups, but had {self._size} when this scheduler was "
                "made: add groups before, or make a new scheduler"
            )
        super().step(epoch)
        # Tensors must be filled, not replaced, so that only groups of plain numbers are set without looking.
        plain = self._step_count > 1 and not any(isinstance(group["lr"], Tensor) for group in groups)
        self._groups = groups if plain else None

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
                train on a curve that nobody asked for.
        """
        mine = self.state_dict()
        if state_dict.get("format") not in (1, STATE_FORMAT):
            raise ValueError(
                f"the checkpoint's scheduler state was not written by hf_sched (format {STATE_FORMAT} or before), but "
                f"this run asks for {self.name!r}. {_WAYS_OUT}"
            )
        if state_dict["format"] == 1:
            state_dict = {**state_dict, "schedule": from_format_1(state_dict["schedule"])}
        changed = [
            f"{what} was {state_dict.get(key)!r}, now {mine[key]!r}"
            for key, what in (("name", "name"), ("schedule", "curve"), ("base_lrs", "peak learning rates"))
            if state_dict.get(key) != mine[key]
        ]
        if changed:
            raise ValueError(f"the checkpoint was written under another schedule: {'; '.join(changed)}. {_WAYS_OUT}")
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            _update_param_group_val(group, "lr", rate)


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
    *,
    steps_per_epoch: float | None = None,
) -> LRScheduler:
    """As `transformers.get_scheduler`, for the names of hf_sched; transformers' own names are passed on to it.

    Args:
        name: One of `available()`, or of transformers' names.
        optimizer: The optimizer; the learning rates of its groups are their peaks.
        num_warmup_steps: Optimizer steps of warmup; None is 0.
        num_training_steps: Optimizer steps of the run.
        scheduler_specific_kwargs: The schedule's own arguments.
        steps_per_epoch: Optimizer steps of an epoch, where an argument is in epochs (`"1ep"`).

    Raises:
        ValueError: The name is unknown or an argument does not fit.
    """
    plain_name = getattr(name, "value", name)
    if plain_name in registry.available():
        schedule = registry.entry(plain_name).build(
            num_training_steps, num_warmup_steps or 0, scheduler_specific_kwargs or {}, steps_per_epoch
        )
        return ScheduleLR(optimizer, schedule, name=plain_name)
    if plain_name not in BUILTIN_NAMES:
        raise ValueError(registry.unknown_name(plain_name))
    import transformers

    scheduler: LRScheduler = transformers.get_scheduler(
        plain_name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs
    )
    return scheduler


def _floor_of_group(schedule: Schedule, number: int, peak: float) -> float:
    try:
        return schedule.floor(peak)
    except ValueError as error:
        raise ValueError(f"parameter group {number}: {error}") from None
