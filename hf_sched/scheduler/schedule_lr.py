"""The torch scheduler that plays a `Schedule` on the parameter groups of an optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hf_sched.scheduler import lars
from hf_sched.scheduler.checkpoint_state import STATE_FORMAT, plain, read_state
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.param_groups import rates_of, set_rate
from hf_sched.scheduler.resume import OnResume, check_groups, resumed, split_on_resume
from hf_sched.schedules import registry
from hf_sched.schedules.registry import BUILTIN_NAMES
from hf_sched.schedules.schedule import Schedule

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
        arguments: What it was made from, as checkpoints tell it.
        on_resume: What to do if a checkpoint was trained under another schedule: `keep`, `replace`, `continue` or
            `rewarm` (see `hf_sched.scheduler.resume`); None: an error.
        last_epoch: The optimizer step to start at, less one; as in torch.

    Raises:
        ValueError: The floor is above the peak of a parameter group; the message names the group. Or the schedule asks
            for trust ratios (`lars`), which this optimizer cannot give.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        name: str = "schedule",
        arguments: Mapping[str, Any] | None = None,
        on_resume: str | OnResume | None = None,
        last_epoch: int = -1,
    ) -> None:
        self.requested = schedule
        self.name = name
        self.arguments = dict(arguments or {})
        self.on_resume = OnResume.parse(on_resume) if isinstance(on_resume, str) else on_resume
        trust = lars.prepare(optimizer, schedule)
        peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self._peaks = tuple(peaks)  # as given: a resume may go on with the checkpoint's
        self._size = len(peaks)
        self._groups: list[dict[str, Any]] | None = None
        self.resumed = False
        """Whether a checkpoint's state was loaded."""
        self.run_steps = schedule.num_training_steps
        """Optimizer steps of the run; the curve of a checkpoint (`on_resume: keep`) may end before."""
        self._told: set[int] = set()
        self._set_group_schedule(GroupSchedule(schedule, self._peaks))
        super().__init__(optimizer, last_epoch)
        self.base_lrs = [*peaks]  # plain numbers, where torch keeps tensors
        if trust:
            trust.attach(self)

    @property
    def schedule(self) -> Schedule:
        """The curve in force: the one requested, unless a resume kept another, or the run was told to cool down."""
        return self.group_schedule.schedule

    def _set_group_schedule(self, group_schedule: GroupSchedule) -> None:
        self.group_schedule = group_schedule
        """What the groups train on."""
        self._alike = group_schedule.alike
        if group_schedule.cooldown is not None:
            self.run_steps = group_schedule.schedule.num_training_steps

    def change_group_schedule(self, group_schedule: GroupSchedule) -> None:
        """Go on with another group_schedule, from the step that comes next; up to there it must be the same."""
        self._set_group_schedule(group_schedule)
        self.last_epoch = self.last_epoch  # which forgets the rates worked out ahead
        self.set_rates()

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
        rates: list[float | Tensor] = self.group_schedule.rates(step, step + 1)[:, 0].tolist()
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
        return rates_of(self.optimizer)

    @_last_lr.setter
    def _last_lr(self, rates: list[float | Tensor]) -> None:
        """Torch's `step` sets them, from the groups, where they are read."""

    def _look_ahead(self) -> Any:
        """Work out the rates of the steps to come, one number each where all groups are alike; gives the next ones."""
        step, total = self._behind, self.schedule.num_training_steps
        ends = [total, self.run_steps] if self.run_steps > total else [total]  # each is told of once
        past = [end for end in ends if step > end]
        if past and past[-1] not in self._told:
            self._told.add(past[-1])
            kept = past[-1] < self.run_steps
            warnings.warn((_kept_to_its_end if kept else _past_the_end)(self.name, past[-1]), UserWarning, stacklevel=3)
        stop = step + max(_LOOK_AHEAD // (1 if self._alike else self._size), 1)
        # The last optimizer step is followed by a call, too; those behind it are told of.
        stop = min([stop, *(end + 1 for end in ends if step <= end)])
        rates = self.group_schedule.rates(step, stop, slice(0, 1) if self._alike else slice(None))
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
        """Plain numbers, strings, lists and dicts only, so that `torch.load(..., weights_only=True)` reads it."""
        first = self.schedule.segments[0]
        return {
            "format": STATE_FORMAT,
            "name": self.name,
            "arguments": plain(self.arguments),
            **self.group_schedule.state(),
            "num_warmup_steps": first.steps if first.kind == "warmup" else 0,
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": [float(lr) for lr in self._last_lr],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped; the optimizer's groups have the right learning rate at once.

        Raises:
            ValueError: The checkpoint was written under another curve or other peak learning rates, and `on_resume`
                does not say what to do. The message shows what changed and what the next learning rate would be.
        """
        saved = read_state(state_dict)
        group_schedule = resumed(saved, GroupSchedule(self.requested, self._peaks), self.name, self.on_resume)
        self.resumed = True
        self._set_group_schedule(group_schedule)
        self.base_lrs = [*group_schedule.peaks]
        self.last_epoch = saved.step
        self._step_count = state_dict.get("_step_count", saved.step + 1)
        self.set_rates()

    def set_rates(self) -> None:
        """Set the groups' rates and peaks again where the optimizer has just loaded a checkpoint's."""
        for group, rate, peak in zip(
            self.optimizer.param_groups, self.get_lr(), self.group_schedule.peaks, strict=True
        ):
            set_rate(group, rate)
            set_rate(group, peak, "initial_lr")

    def check_groups(self, checkpoint: str | PathLike[str]) -> None:
        """Refuse a Trainer's checkpoint of another number of parameter groups, before the optimizer loads its state.

        Raises:
            ValueError: It is of another number; the message shows what changed.
        """
        file = Path(checkpoint, "scheduler.pt")
        if file.is_file():
            saved = read_state(torch.load(file, map_location="cpu", weights_only=True))
            check_groups(saved, GroupSchedule(self.requested, self._peaks), self.name)


def _past_the_end(name: str, total: int) -> str:
    return (
        f"{name}: stepped beyond its {total} steps; the learning rate of the last one is held. Mostly the schedule is "
        "stepped too often: by `accelerator.prepare(scheduler)`, which steps it once for each process (use "
        "`hf_sched.prepare_scheduler`), once for each batch where gradients are accumulated, or twice in a loop. Or "
        "the run is longer than `num_training_steps` said"
    )


def _kept_to_its_end(name: str, total: int) -> str:
    return (
        f"{name}: the checkpoint's curve, which `on_resume: keep` goes on with, has ended after its {total} steps; its "
        "last learning rate is held to the end of the run"
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
        scheduler_specific_kwargs: The schedule's own arguments, and `on_resume`.
        steps_per_epoch: Optimizer steps of an epoch, where an argument is in epochs (`"1ep"`).

    Raises:
        ValueError: The name is unknown or an argument does not fit.
    """
    plain_name = getattr(name, "value", name)
    if plain_name in registry.available():
        return make_scheduler(
            plain_name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs, steps_per_epoch
        )
    if plain_name not in BUILTIN_NAMES:
        raise ValueError(registry.unknown_name(plain_name))
    import transformers

    scheduler: LRScheduler = transformers.get_scheduler(
        plain_name, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs
    )
    return scheduler


def schedule_of(lr_scheduler: Any) -> ScheduleLR | None:
    """Ours behind what a Trainer holds; None if it is another's."""
    found = getattr(lr_scheduler, "scheduler", lr_scheduler)  # Accelerate may have wrapped it
    return found if isinstance(found, ScheduleLR) else None


def make_scheduler(
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None,
    num_training_steps: int | None,
    arguments: Mapping[str, Any] | None,
    steps_per_epoch: float | None,
    last_epoch: int = -1,
) -> ScheduleLR:
    """One of our schedules on an optimizer; arguments as in `get_scheduler`."""
    on_resume, others = split_on_resume(arguments)
    schedule = registry.entry(name).build(num_training_steps, num_warmup_steps or 0, others, steps_per_epoch)
    on_resume = on_resume and on_resume.in_steps(steps_per_epoch)
    return ScheduleLR(optimizer, schedule, name=name, arguments=others, on_resume=on_resume, last_epoch=last_epoch)
