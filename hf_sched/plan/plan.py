"""The plan of a run, computed from its arguments: no model, tokenizer or device is used."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched._run_files import read_trainer_state
from hf_sched.callbacks.time_budget import TimeBudget, foreign_schedule
from hf_sched.plan.dataset_size import DatasetSize, find_dataset_size
from hf_sched.plan.grpo_batches import Generations
from hf_sched.plan.processes import LAUNCH_KEYS, WorldSize, find_world_size
from hf_sched.plan.run_events import find_events
from hf_sched.plan.run_length import Batching, RunLength
from hf_sched.plan.training_config import GENERATING, TrainingConfig
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.scheduler.hyperparameters import IN_TRAINER, read_schedules
from hf_sched.scheduler.named_groups import read_rules
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import (
    NO_UNITS,
    TEXT,
    ArgumentError,
    DurationUnknown,
    Number,
    StepUnits,
    Whole,
    suggest,
)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlannedGroup:
    """What `lr_groups` requests for the parameters that a pattern matches."""

    pattern: str
    peak: float
    schedule: str | None
    """The text of its schedule; None if it follows the schedule of the run."""
    curve: Array | None = field(compare=False, repr=False)


@dataclass(frozen=True)
class Plan:
    """What a run will do. Steps of the schedule count from 0; checkpoints and evaluations use the Trainer's numbers."""

    kind: str
    source: str
    assumed: tuple[str, ...]
    num_training_steps: int
    steps_per_epoch: int | None
    epochs: float | None
    """The Trainer's `epoch` at the end; None if the number of samples is unknown, like `steps_per_epoch`."""
    num_warmup_steps: int
    """The Trainer's warmup. A schedule's own warmup is only in `schedule`."""
    effective_batch: int
    """Samples (GRPO: completions) per optimizer step, on all processes together."""
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    world_size: WorldSize
    dataset_size: DatasetSize
    schedule_name: str
    schedule: Schedule | None
    """None for transformers' own schedules."""
    curve: Array | None = field(compare=False, repr=False)
    """The learning rate of each step, float64 of shape (num_training_steps,); None if it depends on metrics."""
    first_lr: float | None
    peak_lr: float | None
    last_lr: float | None
    checkpoints: tuple[int, ...] | None
    """Steps after which a checkpoint is written; None if they are unknown."""
    output_dir: str
    evaluations: tuple[int, ...] | None
    """Steps after which the run evaluates (0: before the first step); None if they are unknown."""
    grpo: Generations | None
    groups: tuple[PlannedGroup, ...]
    hyperparameters: dict[str, str]
    """The schedule of each other hyperparameter that has one, as text."""
    hyperparameter_curves: dict[str, Array] = field(compare=False, repr=False)
    """Their values at each step; multiples if the configured value is unknown."""
    notes: tuple[str, ...]
    units: StepUnits = field(default=NO_UNITS, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        plain = dataclasses.asdict(
            dataclasses.replace(self, schedule=None, curve=None, groups=(), hyperparameter_curves={}, units=NO_UNITS)
        )
        del plain["units"]
        return {
            **plain,
            "schedule": self.schedule and str(self.schedule),
            "curve": _as_list(self.curve),
            "groups": [{**vars(group), "curve": _as_list(group.curve)} for group in self.groups],
            "hyperparameter_curves": {name: curve.tolist() for name, curve in self.hyperparameter_curves.items()},
        }

    @property
    def curves(self) -> dict[str, Array]:
        """The known learning rates: of the run, by the name of its schedule, and of each pattern of `lr_groups`."""
        curves = {self.schedule_name: self.curve, **{group.pattern: group.curve for group in self.groups}}
        return {name: curve for name, curve in curves.items() if curve is not None}


def _as_list(curve: Array | None) -> list[float] | None:
    return None if curve is None else curve.tolist()


def plan(
    config: TrainingConfig,
    *,
    dataset_size: int | None = None,
    num_processes: int | None = None,
    accelerate_config: str | None = None,
    tokens_per_sample: float | Callable[[], float] | None = None,
) -> Plan:
    """Compute what a run with these arguments will do.

    Args:
        config: The arguments.
        dataset_size: Samples of the training data (with `packing`: packed sequences). None to count a local or cached
            dataset, or to plan without the number if `max_steps` is set.
        tokens_per_sample: The mean number of tokens of these samples, for durations in tokens; a function is called
            only if there are any.
        num_processes: The number of processes. None for the number in the Accelerate configuration, or 1.
        accelerate_config: The file for `accelerate launch --config_file`. None for the one that the arguments name.

    Raises:
        ValueError: An argument is wrong, or the length of the run is unknown.

    Examples:
        >>> config = TrainingConfig("sft", {"max_steps": 100, "lr_scheduler_type": "cosine_floor"})
        >>> plan(config).num_training_steps
        100
    """
    config, trained, notes = _with_cooldown(config)
    processes = find_world_size(config, num_processes, accelerate_config)
    samples = find_dataset_size(config, dataset_size)
    batching = Batching.read(config, processes.processes)
    generations = Generations.read(config, batching) if config.kind in GENERATING else None
    length = find_length(config, batching, samples)

    (name, arguments), peak = _schedule_of(config), config.value("learning_rate", Number(0))
    units = find_units(config, length, batching, tokens_per_sample)
    try:
        laid_out_for = registry.length_of(name, arguments, length.num_training_steps, units)
        warmup = _warmup_steps(config, laid_out_for or length.num_training_steps)
        run = length.num_training_steps, warmup, peak, units
        drawn = NamedSchedule(name, arguments).curve(*run)
    except DurationUnknown as error:
        hint = "give `--dataset-size N`" if error.hint else ""  # the tokens have their own remedy
        raise DurationUnknown(error.name, rule=error.rule, hint=hint) from None
    curve = drawn and drawn.curve
    hyperparameters = dict(planned_hyperparameters(config, length.num_training_steps, units))
    checkpoints, evaluations = find_events(config, length, trained)
    if generations and evaluations != ():
        generations.check_evaluation(config, processes.processes)
    notes += _notes(config, batching, generations, samples.samples)
    notes += _time_budget(config, name)
    for key in ("decay_per_layer", "loraplus_lr_ratio", "optimizer", "muon_learning_rate"):
        if (value := config.get(key)) is not None:
            notes.append(f"`{key}` {value} gives some parameters other peaks; a dry run shows them.")
    notes += horizon_notes(drawn and drawn.schedule, peak)
    if curve is None:
        notes.append("The learning rate depends on metrics; only its start is known.")
    elif curve[0] == 0 and curve.max() > 0:
        notes.append("The first step trains at a learning rate of 0.")
    return Plan(
        kind=config.kind,
        source=config.source,
        assumed=assumptions(config, processes),
        num_training_steps=length.num_training_steps,
        steps_per_epoch=length.steps_per_epoch,
        epochs=length.epoch_after(length.num_training_steps),
        num_warmup_steps=warmup,
        effective_batch=batching.effective_batch,
        per_device_train_batch_size=batching.batch_size,
        gradient_accumulation_steps=batching.accumulation,
        world_size=processes,
        dataset_size=samples,
        schedule_name=name,
        schedule=drawn and drawn.schedule,
        curve=curve,
        first_lr=peak if curve is None else float(curve[0]),
        peak_lr=peak if curve is None else float(curve.max()),
        last_lr=None if curve is None else float(curve[-1]),
        checkpoints=checkpoints,
        output_dir=config.get("output_dir", TEXT) or "trainer_output",
        evaluations=evaluations,
        grpo=generations and generations.in_run(length),
        groups=tuple(planned_groups(config, NamedSchedule(name, arguments), *run)),
        hyperparameters={name: text for name, (text, _) in hyperparameters.items()},
        hyperparameter_curves={name: values for name, (_, values) in hyperparameters.items()},
        notes=tuple(notes),
        units=units,
    )


def assumptions(config: TrainingConfig, processes: WorldSize | None) -> tuple[str, ...]:
    """What is assumed about a run because nothing specifies it: "kind sft (has `max_length`)", "1 process"."""
    kind = (f"kind {config.kind} ({config.kind_reason})",) if config.kind_reason else ()
    return (*kind, "1 process") if processes and processes.assumed else kind


def _with_cooldown(config: TrainingConfig) -> tuple[TrainingConfig, int, list[str]]:
    """The arguments of a cooldown that starts from a checkpoint (`anneal_from`), and the steps of the checkpoint."""
    checkpoint = config.get("anneal_from", TEXT)
    if checkpoint is None:
        return config, 0, []
    from hf_sched.scheduler.anneal import anneal_from

    _, kwargs = _schedule_of(config)
    given = {name: kwargs.get(name) for name in ("floor_ratio", "min_lr")}
    given |= {name: config.given.get(f"anneal_{name}") for name in ("duration", "shape")}
    cooldown = anneal_from(checkpoint, **{name: value for name, value in given.items() if value is not None})
    trained = read_trainer_state(Path(checkpoint) / "trainer_state.json")["global_step"]
    note = f"The run continues from {checkpoint} after {trained} steps, with the schedule and length of the cooldown."
    return dataclasses.replace(config, given={**config.given, **cooldown}), trained, [note]


def find_length(config: TrainingConfig, batching: Batching, samples: DatasetSize) -> RunLength:
    """The length of a run, from `max_steps` or the number of samples.

    Raises:
        ValueError: An argument is wrong, or the length is unknown.
    """
    generations = Generations.read(config, batching) if config.kind in GENERATING else None
    max_steps = config.value("max_steps", Whole(-1))
    if max_steps == 0:
        raise ArgumentError("max_steps", "1 or more, or -1 to use `num_train_epochs`", 0)
    epochs = config.value("num_train_epochs", Number(0, above_low=max_steps < 0))
    batches = None if samples.samples is None else (generations or batching).batches_per_epoch(samples.samples)
    if batches is None and max_steps < 0:
        packed = ", N packed sequences," if config.get("packing") else ""
        remedy = "Write `max_steps`" if samples.streamed else f"Give `--dataset-size N`{packed} or write `max_steps`"
        rule = "the number of optimizer steps is unknown without the number of samples"
        raise ValueError(f"{rule}: {samples.source}. {remedy}")
    if batches == 0:
        needed = generations.prompts_per_generation if generations else batching.samples_at_once
        rule = f"requires {needed} samples on all processes, but the dataset has {samples.samples} ({samples.source})"
        raise ArgumentError("per_device_train_batch_size", "", batching.batch_size, "make it smaller", rule)
    if max_steps < 0:  # otherwise it overrides the epochs
        max_steps = math.ceil(epochs * math.ceil((batches or 0) / batching.accumulation))
    return RunLength(max_steps, batching.accumulation, batches)


def find_units(
    config: TrainingConfig,
    length: RunLength,
    batching: Batching,
    tokens_per_sample: float | Callable[[], float] | None = None,
) -> StepUnits:
    """What turns epochs, samples (GRPO: completions) and tokens of a run into optimizer steps."""

    @cache
    def tokens_per_step() -> float:
        if config.kind in GENERATING:
            raise ValueError("the completions are generated in training: write steps or samples")
        if tokens_per_sample is None:
            raise ValueError("the data are not tokenized yet: give `--tokens-per-sample N`, or write steps or samples")
        tokens = tokens_per_sample() if callable(tokens_per_sample) else tokens_per_sample
        return batching.effective_batch * Number(0, above_low=True)("tokens_per_sample", tokens)

    return StepUnits(length.steps_per_epoch, batching.effective_batch, count_tokens=tokens_per_step)


def horizon_notes(schedule: Schedule | None, peak: float) -> Iterator[str]:
    """What follows from a horizon that is not the length of the run."""
    if schedule is None or schedule.horizon in (None, schedule.num_training_steps):
        return
    horizon, total = schedule.horizon or 0, schedule.num_training_steps or 0
    last, end = schedule.lr(total - 1, peak=peak), schedule.lr(horizon - 1, peak=peak)
    if horizon < total:
        held = f"the learning rate stays at {end:.4g} for {total - horizon:,} step{'s' * (total - horizon > 1)}"
        yield f"The horizon ends at step {horizon:,}: {held}."
    else:
        there = "" if last == end else f", {'above' if last > end else 'below'} the end level {end:.4g}"
        yield f"The run ends at step {total:,} of the horizon of {horizon:,}, at a learning rate of {last:.4g}{there}."


def _schedule_of(config: TrainingConfig) -> tuple[str, dict[str, Any]]:
    name, arguments = schedule_text.read(config.value("lr_scheduler_type"), config.mapping("lr_scheduler_kwargs"))
    if name not in (*registry.available(), *registry.BUILTIN_NAMES):
        raise registry.unknown_schedule(name)
    return name, split_on_resume(arguments)[1]


def planned_groups(
    config: TrainingConfig, of_run: NamedSchedule, steps: int, warmup: int, peak: float, units: StepUnits
) -> Iterator[PlannedGroup]:
    """The groups by name, as far as the arguments say; their patterns are compared with the model when it is loaded."""
    for rule in read_rules(config.mapping("lr_groups")):
        if rule.schedule is not None and of_run.name not in registry.available():
            rest = "has its own schedule, which needs an `lr_scheduler_type` of hf_sched for the other groups"
            raise ArgumentError(f"lr_groups.{rule.pattern}", rule=rest, received=of_run.name)
        followed = of_run if rule.schedule is None else NamedSchedule.read(rule.schedule)
        with schedule_text.blaming(f"lr_groups.{rule.pattern}"):
            drawn = followed.curve(steps, warmup, rule.rate.at(peak), units)
        own = str(drawn.schedule) if drawn and rule.schedule else None
        yield PlannedGroup(rule.pattern, rule.rate.at(peak), own, drawn and drawn.curve)


def planned_hyperparameters(
    config: TrainingConfig, num_training_steps: int, units: StepUnits
) -> Iterator[tuple[str, tuple[str, Array]]]:
    """The schedules of other hyperparameters by name: as text with the values of their levels, and as curves."""
    for one in read_schedules(config.mapping("schedules")):
        if config.kind != "trainer" and one.name in IN_TRAINER and one.name not in config.fields:
            raise ArgumentError(f"schedules.{one.name}", rule=f"has no effect: {config.kind} has no `{one.name}`")
        configured = config.get(one.name, Number())
        # `momentum` is no argument of a Trainer: with any value it shows whether the schedule fits the run.
        schedule = one.build(0.5 if configured is None else configured, num_training_steps, units)
        values = "values" if one.absolute else "multiples" if configured is None else f"multiples of {configured:g}"
        curve = schedule.curve(peak=one.peak(1.0 if configured is None else configured))
        yield one.name, (f"{schedule} ({values})", curve)


def _time_budget(config: TrainingConfig, name: str) -> Iterator[str]:
    """The note about a deadline, which may shorten the run."""
    if (given := config.get("time_budget")) is None:
        return
    budget = TimeBudget.parse(given, time.time())
    if name not in registry.available():
        raise foreign_schedule(name)
    cooldown = config.get("anneal_duration") or "20%"
    yield (
        f"Time budget {budget}: if the steps do not fit, the run ends earlier with a cooldown of {cooldown}, which "
        "begins in time for the run to be evaluated and saved."
    )
    if config.get("evaluate_on") is not None and config.get("time_reserve") is None:
        yield "`evaluate_on` evaluates after the run, outside the time budget: `time_reserve` keeps time free for it."


def _warmup_steps(config: TrainingConfig, num_training_steps: int) -> int:
    from transformers import TrainingArguments

    ratio = config.get("warmup_ratio", Number(0, 1)) or 0.0  # transformers 5 has no such argument
    requested = SimpleNamespace(warmup_steps=config.value("warmup_steps", Number(0)), warmup_ratio=ratio)
    return int(TrainingArguments.get_warmup_steps(requested, num_training_steps))


def _notes(
    config: TrainingConfig, batching: Batching, generations: Generations | None, samples: int | None
) -> Iterator[str]:
    """Consequences of the arguments that are easy to miss."""
    if config.kind != "trainer":  # a script for the Trainer usually has more arguments
        for key in config.given:
            if key not in config.fields and key not in LAUNCH_KEYS:
                hint = suggest(key, config.fields)
                yield f"`{key}` is not an argument and is ignored here{f'; {hint}' if hint else '.'}"
    size = generations.prompts_per_generation if generations else batching.samples_at_once
    dropped = (samples or 0) % size if generations or batching.drop_last else 0
    if dropped:
        yield f"Each epoch drops {dropped} of the {samples:,} {'prompts' if generations else 'samples'}."
