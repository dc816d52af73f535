"""Schedules of other hyperparameters in any Trainer: weight decay, betas, momentum, and what TRL's losses read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from transformers import TrainerCallback

from hf_sched.integrations.transformers_trainer import step_units
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.hyperparameters import IN_GROUPS, IN_TRAINER, Rest, read_schedules
from hf_sched.scheduler.param_groups import find_optimizers
from hf_sched.scheduler.resume import read_schedule, split_on_resume
from hf_sched.scheduler.schedule_lr import schedule_of
from hf_sched.schedules.validation import ArgumentError

PREFIX = "hyperparameter/"
"""Of the names in the log and in `learning_rates.jsonl`."""
_RECORD = "HyperparameterSchedules"


class _Place(NamedTuple):
    """Where a value is: the key of a parameter group, or an attribute of the trainer; and its position in a pair."""

    holder: dict[str, Any]
    key: str
    position: int | None = None

    def value(self) -> float:
        value = self.holder[self.key]
        return float(value if self.position is None else value[self.position])

    def set(self, value: float) -> None:
        if (at := self.position) is None:
            self.holder[self.key] = value
        else:
            pair = self.holder[self.key]
            self.holder[self.key] = (*pair[:at], value, *pair[at + 1 :])

    def configured(self, name: str) -> float:
        """The value before any schedule changed it, which is kept beside it, as torch keeps `initial_lr`."""
        return float(self.holder.setdefault(f"initial_{name}", self.value()))


class _Target(NamedTuple):
    """A hyperparameter in use: its places, and their values as those of the groups of a schedule."""

    name: str
    places: list[_Place]
    planned: GroupSchedule

    @property
    def steps(self) -> int:
        """The planned steps of the run, which a Trainer knows."""
        return self.planned.schedule.num_training_steps or 1


class HyperparameterSchedules(TrainerCallback):
    """Sets hyperparameters to schedules at every optimizer step.

    Names are those of the arguments: `weight_decay`, `adam_beta1`, `adam_beta2`, `adam_epsilon` and `momentum` in the
    optimizer's groups, and `beta`, `epsilon` and `epsilon_high` of TRL's trainers. Levels are multiples of the
    configured value. The last step trains exactly at the end level. Groups without weight decay stay without it.

    Each log record gets `hyperparameter/NAME`. With `LearningRateLog` the values are recorded and audited, and the
    guard compares them with the schedule at every step. Checkpoints record the schedules; a resume with others is
    rejected unless `on_resume` in `lr_scheduler_kwargs` makes a choice.

    Args:
        schedules: For each name a schedule as text, or `{"schedule": text, "absolute": True}` for levels that are
            values.

    Raises:
        ArgumentError: A hyperparameter cannot change during a run, or a schedule is wrong.

    Examples:
        >>> decayed = hf_sched.HyperparameterSchedules({"weight_decay": "hold 50% | decay to 0"})
        >>> Trainer(model, args, train_dataset=data, callbacks=[decayed])
    """

    def __init__(self, schedules: Mapping[str, Any]) -> None:
        self.schedules = read_schedules(schedules)
        self.trainer: Any = None
        """Set by hf_sched when training begins."""
        self._given = dict(schedules)
        self._targets: list[_Target] = []
        self._rest: Rest | None = None
        self._set: list[tuple[str, _Place, float]] = []
        """The values of this step."""

    def keep_configured(self, optimizer: Any) -> None:
        """Keep the configured values in the optimizer's groups; hf_sched calls this before a checkpoint is loaded."""
        groups = [group for one in find_optimizers(optimizer).training for group in one.param_groups]
        for schedule in self.schedules:
            if schedule.name in IN_GROUPS:
                for place in _places_in(groups, schedule.name):
                    place.configured(schedule.name)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        """Find the places of the values, and compare the schedules with those of the checkpoint."""
        groups = [group for one in find_optimizers(optimizer).training for group in one.param_groups]
        self._rest, self._targets, self._set = None, [], []
        for schedule in self.schedules:
            places = _find_places(schedule.name, groups, self.trainer)
            configured = [place.configured(schedule.name) for place in places]
            built = schedule.build(max(configured), state.max_steps, step_units.get())
            planned = GroupSchedule(built, tuple(map(schedule.peak, configured)))
            self._targets.append(_Target(schedule.name, places, planned))
        if state.global_step:
            self._resume(args, state)
        self._follow_cooldown(state, lr_scheduler)
        self._save(state)

    def on_step_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Set the values of the step."""
        if self._follow_cooldown(state, lr_scheduler):
            self._save(state)
        self._set = []
        for target in self._targets:
            at = state.global_step
            if self._rest is not None:
                at = self._rest.position_at(at, target.steps)
            values = zip(target.places, target.planned.at(at), strict=True)
            self._set += [(target.name, place, value) for place, value in values]
        for _, place, value in self._set:
            place.set(value)

    def _follow_cooldown(self, state: Any, lr_scheduler: Any) -> bool:
        """Shorten the schedules with the run from this step on; returns whether the end has changed."""
        scheduler, rest, step = schedule_of(lr_scheduler), self._rest, state.global_step
        cooldown = scheduler.group_schedule.cooldown if scheduler else None
        if cooldown is None:
            self._rest = None
        elif (rest is None or rest.first + rest.steps != cooldown.end) and step < cooldown.end:
            planned = max((one.steps for one in self._targets), default=1)
            position = step - 1 if rest is None else rest.position_at(step - 1, planned)
            self._rest = Rest(step, position, cooldown.end - step)
        return self._rest != rest

    def _save(self, state: Any) -> None:
        """Write the schedules and their rest into the state, which each checkpoint has."""
        attributes = {"saved": self.plans()}
        state.stateful_callbacks[_RECORD] = {"args": {"schedules": self._given}, "attributes": attributes}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Release the trainer; hf_sched calls this when training ends or fails."""
        self.trainer, self._targets, self._set = None, [], []

    def plans(self) -> dict[str, dict[str, Any]]:
        """The schedule of each hyperparameter as plain values, by its name in records."""
        return {PREFIX + target.name: {**target.planned.state(), "rest": self._rest} for target in self._targets}

    def values(self) -> dict[str, float]:
        """The largest value of each hyperparameter in use."""
        return {PREFIX + target.name: max(place.value() for place in target.places) for target in self._targets}

    def find_changed(self, step: int) -> str | None:
        """A message about the first value that is not the one that was set for this step."""
        for name, place, value in self._set:
            if place.value() != value:
                return (
                    f"optimizer step {step}: `{name}` is {place.value()!r}, but its schedule has {value!r} there: "
                    "another component sets it (a callback, the optimizer, the trainer itself)"
                )
        return None

    def _resume(self, args: Any, state: Any) -> None:
        """Continue the schedules of the checkpoint, or the new ones if `on_resume` says so."""
        record = state.stateful_callbacks.get(_RECORD, {}).get("attributes", {}).get("saved", {})
        saved = {name.removeprefix(PREFIX): GroupSchedule.from_state(one) for name, one in record.items()}
        self._rest = next((Rest(*one["rest"]) for one in record.values() if one["rest"]), None)
        here = {target.name: target.planned for target in self._targets}
        if saved.keys() == here.keys() and all(saved[name].requests_same(one) for name, one in here.items()):
            return
        on_resume, _ = split_on_resume(read_schedule(args)[1])
        if on_resume is None:
            texts = [
                {name: f"{one.schedule} of {max(one.peaks)!r}" for name, one in each.items()} for each in (saved, here)
            ]
            rule = f"differ from those of the checkpoint, at step {state.global_step}: {texts[0]}, now {texts[1]}"
            hint = "`on_resume` in `lr_scheduler_kwargs` must be `keep` (the checkpoint's) or `replace`"
            raise ArgumentError("schedules", rule=rule, hint=hint)
        if on_resume.choice == "keep":
            self._targets = [one._replace(planned=saved.get(one.name, one.planned)) for one in self._targets]


def _places_in(groups: list[dict[str, Any]], name: str) -> list[_Place]:
    entry, position = IN_GROUPS[name]
    return [_Place(group, entry, position) for group in groups if group.get(entry) is not None]


def _find_places(name: str, groups: list[dict[str, Any]], trainer: Any) -> list[_Place]:
    """The places of a hyperparameter; an ArgumentError says why it has none."""
    key = f"schedules.{name}"
    if name in IN_GROUPS:
        places = _places_in(groups, name)
        if not places:
            raise ArgumentError(key, rule=f"has no effect: the optimizer has no `{IN_GROUPS[name][0]}`")
        if name == "weight_decay":
            places = [place for place in places if place.configured(name)] or places[:1]
        return places
    attributes, names = vars(trainer) if trainer is not None else {}, IN_TRAINER[name]
    rule = hint = ""
    if missing := [one for one in names if one not in attributes]:
        rule = f"has no effect: {type(trainer).__name__} has no `{missing[0]}`"
    elif "liger_loss" in attributes:
        rule = "cannot change during a run: the loss of `use_liger_kernel` fixes it at the start"
    elif name == "beta" and attributes["beta"] == 0 and hasattr(trainer, "num_generations"):
        rule, hint = "cannot rise from 0: without `beta`, TRL loads no reference model", "set it to its largest value"
    if rule:
        raise ArgumentError(key, rule=rule, hint=hint)
    if name == "epsilon" and trainer.args.epsilon_high is not None:
        names = names[:1]
    return [_Place(attributes, one) for one in names]
