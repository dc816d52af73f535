"""The torch scheduler that applies a `Schedule` to the parameter groups of an optimizer."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hf_sched.scheduler import lars
from hf_sched.scheduler.group_schedule import OWN_SCHEDULE, GroupSchedule
from hf_sched.scheduler.param_groups import find_optimizers, peak_of, set_rate
from hf_sched.scheduler.resume import OnResume, Saved, numbers_text, resumed, split_on_resume
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.registry import BUILTIN_NAMES
from hf_sched.schedules.schedule import OPEN, Schedule
from hf_sched.schedules.validation import NO_UNITS, Amount, ArgumentError, StepUnits

logger = logging.getLogger(__name__)

_CHUNK = 16384
"""Learning rates computed at once: an array costs little more than one, and the pause is too short to notice."""

_PAST_THE_END = (
    "{name}: stepped beyond its {total} steps; the last learning rate is held. The run is longer than "
    "`num_training_steps` or than the curve that `on_resume: keep` continues; or the scheduler is stepped too often: "
    "once per process by `accelerator.prepare` (use `hf_sched.prepare_scheduler`), once per batch under gradient "
    "accumulation, or twice in a loop"
)


class ScheduleLR(LRScheduler):
    """Sets the learning rate of every parameter group to the schedule's, with the group's own peak and floor.

    Construct it before the first optimizer step and call `step()` after each. The peaks are the groups' learning rates
    at construction (`initial_lr`). A group that is added later (`optimizer.add_param_group`) follows the schedule from
    its own peak. A group with a key `lr_schedule` follows that schedule instead (see `hf_sched.param_groups`). A
    learning rate that is a tensor is filled in place and stays the same tensor.

    Args:
        optimizer: The optimizer whose `param_groups` are set. The groups of optimizers that it holds in attributes,
            lists or dicts are set as well, each from its own peak.
        schedule: The curve.
        name: The schedule's name in messages and checkpoints.
        on_resume: What to do if a checkpoint was trained under another schedule: `keep`, `replace`, `continue` or
            `rewarm` (see `hf_sched.scheduler.resume`). By default that is an error.
        last_epoch: The optimizer step before the first one, as in torch.
        build: Builds the schedule of a group from its text, by default without the Trainer's warmup and epochs.

    Raises:
        ValueError: The floor is above the peak of a parameter group (the message names the group), a group has no
            learning rate, or the schedule needs trust ratios (`lars`) that this optimizer cannot provide.

    Examples:
        >>> scheduler = hf_sched.ScheduleLR(optimizer, hf_sched.build("wsd", num_training_steps=1000))
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule,
        *,
        name: str = "schedule",
        on_resume: str | OnResume | None = None,
        last_epoch: int = -1,
        build: Callable[[str], Schedule] | None = None,
    ) -> None:
        self.name = name
        self._build = build or partial(schedule_text.build_text, num_training_steps=schedule.num_training_steps)
        self.on_resume = OnResume.parse(on_resume) if isinstance(on_resume, str) else on_resume
        self.resumed = False
        """Whether the state of a checkpoint was loaded."""
        self.optimizers = find_optimizers(optimizer)
        self._trust_ratio_warmups = lars.prepare(self.optimizers, schedule)
        self.groups: list[dict[str, Any]] = []
        """The parameter groups of all optimizers, numbered in the order in which they were found."""
        self.trained: list[int] = []
        """The numbers of those that train: not of a facade, whose parameters are trained by inner optimizers."""
        self._places: list[tuple[int, int]] = []
        self._lists: list[tuple[Any, list[dict[str, Any]], int]] = []
        self._is_settled = self._has_tensors = self._warned = False
        self.requested = GroupSchedule(schedule, ())
        """The requested learning rates; a resume may continue with others."""
        self.set_group_schedule(self.requested)
        self.find_groups()
        super().__init__(optimizer, last_epoch)
        self.set_rates()
        self.base_lrs = [*self.group_schedule.peaks]  # plain numbers, where torch keeps tensors
        for one in self.optimizers.every:
            if isinstance(one, Optimizer):
                _notice_added_groups(self, one)
        lars.scale_by_trust_ratio(self, self._trust_ratio_warmups)

    @property
    def schedule(self) -> Schedule:
        """The curve in use: the requested one, unless a resume or a live cooldown changed it."""
        return self.group_schedule.schedule

    def set_group_schedule(self, group_schedule: GroupSchedule) -> None:
        """Use other learning rates from the next step on; `set_rates` applies them to the current one as well."""
        self.group_schedule = group_schedule
        self._equal_groups = group_schedule.has_equal_rates
        self._size = len(group_schedule.peaks)
        # The rates of the steps from `_first` to `_stop - 1`, each one number if all groups are equal, else a list.
        self._rates: list[Any] = []
        self._first = self._stop = 0

    def step(self, epoch: int | None = None) -> None:
        """Set the learning rates of the next optimizer step. `epoch` is torch's deprecated way to jump to a step."""
        if epoch is not None or not self._is_settled:
            self._step_with_checks(epoch)
            return
        for optimizer, groups, size in self._lists:
            if optimizer.param_groups is not groups or len(groups) != size:
                self._step_with_checks(epoch)
                return
        groups = self.groups
        self._step_count += 1
        self.last_epoch = step = self.last_epoch + 1
        if not self._first <= step < self._stop:
            self._compute_rates(step)
        rates = self._rates[step - self._first]
        if self._has_tensors:
            for number, group in enumerate(groups):
                set_rate(group, rates if self._equal_groups else rates[number])
        elif self._equal_groups:
            for group in groups:
                group["lr"] = rates
        else:
            for group, rate in zip(groups, rates):  # noqa: B905 (equal lengths; `strict` costs time)
                group["lr"] = rate

    def _step_with_checks(self, epoch: int | None) -> None:
        """Step as torch does, which warns of a wrong order of calls."""
        self.find_groups()
        super().step(epoch)
        for group, rate in zip(self.groups, self.rates(), strict=True):
            set_rate(group, rate)
        self._is_settled = self._step_count > 1  # torch checks the order at the second call

    def find_groups(self) -> None:
        """Look at the optimizers' groups again; groups that are new follow the schedule from their own peaks.

        Raises:
            ValueError: A group was removed, or the floor is above the peak of a new one.
        """
        if self._trust_ratio_warmups:
            lars.split_groups(self.optimizers.training)
        training, facades = self.optimizers.training, self.optimizers.facades
        every = [*training, *facades]
        here = {(which, place): g for which, one in enumerate(every) for place, g in enumerate(one.param_groups)}
        before = {place: number for number, place in enumerate(self._places)}
        if removed := before.keys() - here.keys():
            rest = f"{len(removed)} of the optimizer's {len(before)} parameter groups were removed"
            raise ValueError(f"{rest}, so the schedule {self.name!r} has none to set: make a new scheduler")
        # Numbers in the log stay the same if a group is added to any optimizer.
        places = sorted(here, key=lambda place: (place[0] >= len(training), before.get(place, len(before))))
        groups = [here[place] for place in places]
        new = [group for place, group in zip(places, groups, strict=True) if place not in before]
        if new:
            numbers, peaks = [before.get(place) for place in places], [*map(peak_of, groups)]
            own = [self._own_schedule(group) for group in groups]
            self.requested = self.requested.regrouped(numbers, peaks, own)
            self.set_group_schedule(self.group_schedule.regrouped(numbers, peaks, own))
        self._places, self.groups = places, groups
        self.trained = [number for number, (which, _) in enumerate(places) if which < len(training)]
        self._lists = [(one, one.param_groups, len(one.param_groups)) for one in every]
        self._has_tensors = any(isinstance(group["lr"], Tensor) for group in groups)
        if new and before:
            self.base_lrs = [*self.group_schedule.peaks]
            self.set_rates()
            text = numbers_text([*map(peak_of, new)])
            logger.info("new parameter groups follow the schedule %r from their peaks: %s", self.name, text)

    def _own_schedule(self, group: dict[str, Any]) -> Schedule | None:
        if not group.get(OWN_SCHEDULE):
            return None
        schedule = self._build(group[OWN_SCHEDULE])
        if any(segment.trust_coefficient is not None for segment in schedule.segments):
            rule = "cannot have a warmup by trust ratios (`lars`), which applies to all parameter groups"
            raise ArgumentError(OWN_SCHEDULE, received=group[OWN_SCHEDULE], rule=rule)
        return schedule

    def _compute_rates(self, step: int) -> None:
        """Compute the rates of `step` and of many steps after it."""
        total = self.schedule.num_training_steps
        total = OPEN if total is None else total
        groups = slice(0, 1 if self._equal_groups else self._size)
        stop = step + max(_CHUNK // groups.stop, 1)
        # The last optimizer step is followed by a call of `step` as well; only the ones after it are worth a warning.
        if step <= total:
            stop = min(stop, total + 1)
        elif not self._warned:
            self._warned = True
            warnings.warn(_PAST_THE_END.format(name=self.name, total=total), UserWarning, stacklevel=3)
        rates = self.group_schedule.rates(step, stop, groups)
        self._rates = (rates[0] if self._equal_groups else rates.T).tolist()
        self._first, self._stop = step, stop

    def find_changed_group(self) -> tuple[int, float] | None:
        """The first group whose learning rate is not the schedule's at this step, and the schedule's rate there."""
        for optimizer, groups, size in self._lists:
            if optimizer.param_groups is not groups or len(groups) != size:
                self.find_groups()
                break
        step = self.last_epoch
        if not self._first <= step < self._stop:
            self._compute_rates(step)
        rates, equal = self._rates[step - self._first], self._equal_groups
        for number, group in enumerate(self.groups):
            rate = rates if equal else rates[number]
            if group["lr"] != rate:  # a tensor is compared in its own precision
                return number, rate
        return None

    def rates(self) -> tuple[float, ...]:
        """The learning rate of each of `groups` at optimizer step `last_epoch`."""
        return self.group_schedule.at(max(self.last_epoch, 0))

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each of the optimizer's own `param_groups` at optimizer step `last_epoch`."""
        of_group: dict[int, float | Tensor] = dict(zip(map(id, self.groups), self.rates(), strict=True))
        return [of_group.get(id(group), group["lr"]) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float | Tensor]:
        """The learning rates in `groups`; tensors are copied, because each step refills them."""
        rates = (group["lr"] for group in self.groups)
        return [rate.clone() if isinstance(rate, Tensor) else rate for rate in rates]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, which `torch.load(..., weights_only=True)` reads."""
        return {
            "name": self.name,
            **self.group_schedule.state(),
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "_last_lr": [float(lr) for lr in self.get_last_lr()],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a checkpoint stopped; the optimizer's groups have the right learning rates at once.

        Raises:
            ValueError: The curve or the peaks have changed, and `on_resume` is not given or not possible. The message
                shows what changed and the next learning rate under each choice.
        """
        saved = Saved.read(state_dict)
        self.set_group_schedule(resumed(saved, self.requested, self.name, self.on_resume))
        self.resumed = True
        self.base_lrs, self.last_epoch = [*self.group_schedule.peaks], saved.step
        self._step_count = state_dict.get("_step_count", saved.step + 1)
        self.set_rates()

    def set_rates(self) -> None:
        """Set the groups' learning rates and peaks again, where the optimizer may have loaded others."""
        self.find_groups()
        for group, rate, peak in zip(self.groups, self.rates(), self.group_schedule.peaks, strict=True):
            set_rate(group, rate)
            set_rate(group, peak, "initial_lr")


def _notice_added_groups(scheduler: ScheduleLR, optimizer: Any) -> None:
    """Give a group its scheduled rate when it is added, before the optimizer can use another one.

    A hook before each step would notice it too, but costs time and breaks the graph of a compiled step.
    """
    # Without references to the objects themselves, which would keep the optimizer's state in memory for longer.
    schedules, adds_to = weakref.ref(scheduler), weakref.ref(optimizer)
    add: Callable[..., None] = type(optimizer).add_param_group

    def add_param_group(param_group: dict[str, Any]) -> None:
        add(adds_to(), param_group)
        if (current := schedules()) is not None:
            current.find_groups()

    optimizer.add_param_group = add_param_group


def get_scheduler(
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
    *,
    steps_per_epoch: float | None = None,
    samples_per_step: float | None = None,
    tokens_per_step: float | None = None,
    last_epoch: int = -1,
) -> LRScheduler:
    """Like `transformers.get_scheduler`, for the names of hf_sched as well.

    Args:
        name: One of `available()` or of transformers' names, also with arguments (`"wsd:decay=30%"`), or phases as
            text.
        optimizer: The optimizer; the learning rates of its groups are their peaks.
        num_warmup_steps: Optimizer steps of warmup; None means 0.
        num_training_steps: Optimizer steps of the run; None if they are unknown, as in `hf_sched.build`.
        scheduler_specific_kwargs: The schedule's own arguments, and `on_resume`.
        steps_per_epoch: Optimizer steps per epoch, for arguments in epochs (`"1ep"`).
        samples_per_step: Samples of an optimizer step on all processes, for arguments in samples (`"9k samples"`).
        tokens_per_step: Tokens of an optimizer step on all processes, for arguments in tokens (`"5M tok"`).
        last_epoch: The optimizer step before the first one, for schedules of hf_sched.

    Raises:
        ValueError: The name is unknown or an argument is invalid.

    Examples:
        >>> scheduler = hf_sched.get_scheduler("wsd", optimizer, 50, 1000, {"decay": "20%"})
    """
    run = (num_warmup_steps, num_training_steps, scheduler_specific_kwargs)
    units = StepUnits(steps_per_epoch, samples_per_step, tokens_per_step)
    return make_scheduler(name, optimizer, *run, units=units, last_epoch=last_epoch)


def make_scheduler(
    name: str,
    optimizer: Optimizer,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    scheduler_specific_kwargs: dict[str, Any] | None = None,
    *,
    units: StepUnits = NO_UNITS,
    last_epoch: int = -1,
) -> LRScheduler:
    """Like `get_scheduler`, with the units of the run in one value."""
    text = getattr(name, "value", name)
    name, arguments = schedule_text.read(text, scheduler_specific_kwargs)
    if name in registry.available():
        on_resume, arguments = split_on_resume(arguments)
        schedule = registry.entry(name).build(num_training_steps, num_warmup_steps or 0, arguments, units)
        build = partial(
            schedule_text.build_text,
            num_training_steps=num_training_steps,
            num_warmup_steps=num_warmup_steps or 0,
            units=units,
        )
        if on_resume and isinstance(on_resume.duration, Amount):
            on_resume = OnResume(on_resume.choice, units.as_steps("on_resume", on_resume.duration))
        return ScheduleLR(optimizer, schedule, name=name, on_resume=on_resume, last_epoch=last_epoch, build=build)
    if name not in BUILTIN_NAMES:
        raise registry.unknown_schedule(name)
    import transformers

    return transformers.get_scheduler(text, optimizer, num_warmup_steps, num_training_steps, scheduler_specific_kwargs)  # type: ignore[no-any-return]


def schedule_of(lr_scheduler: Any) -> ScheduleLR | None:
    """The `ScheduleLR` that a Trainer holds, possibly wrapped by Accelerate; None if it is another scheduler."""
    found = getattr(lr_scheduler, "scheduler", lr_scheduler)
    return found if isinstance(found, ScheduleLR) else None


def planned_rates(lr_scheduler: Any, step: int) -> tuple[float, ...] | None:
    """The learning rate that each group should have at a step, from 0, under the scheduler that a Trainer holds.

    None for a scheduler whose rates are no function of the step.
    """
    found = getattr(lr_scheduler, "scheduler", lr_scheduler)
    if isinstance(found, ScheduleLR):
        if not found._first <= step < found._stop:
            return found.group_schedule.at(step)
        rates = found._rates[step - found._first]  # computed ahead for `step`
        return (rates,) * len(found.groups) if found._equal_groups else tuple(rates)
    if isinstance(found, LambdaLR):  # transformers' own schedules
        return tuple(float(peak) * factor(step) for peak, factor in zip(found.base_lrs, found.lr_lambdas, strict=True))
    return None
