"""The plan of a run, computed from its arguments: no model, tokenizer or device is used."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched.plan.dataset_size import DatasetSize, find_dataset_size
from hf_sched.plan.generations import Generations
from hf_sched.plan.launch import WorldSize, find_world_size
from hf_sched.plan.notes import notes_on_batches, notes_on_data, notes_on_events
from hf_sched.plan.run_events import find_events
from hf_sched.plan.run_length import Batching, RunLength
from hf_sched.plan.training_config import GENERATING, TrainingConfig
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError, EpochsUnknown, Number, Whole

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlannedPhase:
    """A phase of the schedule."""

    name: str
    first_step: int
    """Counted from 0."""
    steps: int
    first_lr: float
    """The learning rate of its first step."""
    last_lr: float
    """The learning rate of its last step."""


@dataclass(frozen=True)
class Plan:
    """What a run will do. Steps of the schedule count from 0; checkpoints and evaluations use the Trainer's numbers."""

    kind: str
    source: str
    assumed: tuple[str, ...]
    """What the plan assumes because neither the configuration nor the caller specifies it."""
    num_training_steps: int
    steps_per_epoch: int | None
    """None if the number of samples is unknown, like `epochs`."""
    epochs: float | None
    """The Trainer's `epoch` at the end."""
    num_warmup_steps: int
    """The Trainer's warmup. A schedule's own warmup is only in `phases`."""
    effective_batch: int
    """Samples (GRPO: completions) per optimizer step, on all processes together."""
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    split_batches: bool
    """Whether all processes together share `per_device_train_batch_size`."""
    world_size: WorldSize
    dataset_size: DatasetSize
    schedule_name: str
    schedule_arguments: Mapping[str, Any]
    schedule: Schedule | None
    """None for transformers' own schedules."""
    curve: Array | None = field(compare=False, repr=False)
    """The learning rate of each step, float64 of shape (num_training_steps,); None if it depends on metrics."""
    phases: tuple[PlannedPhase, ...]
    first_lr: float | None
    peak_lr: float | None
    last_lr: float | None
    checkpoints: tuple[int, ...] | None
    """Steps after which a checkpoint is written; None if they are unknown."""
    checkpoints_kept: tuple[int, ...] | None
    """The checkpoints that `save_total_limit` keeps."""
    save_total_limit: int | None
    output_dir: str
    saves_model: bool
    """Whether scripts of this kind save the model in `output_dir` at the end."""
    evaluations: tuple[int, ...] | None
    """Steps after which the run evaluates (0: before the first step); None if they are unknown."""
    grpo: Generations | None
    notes: tuple[str, ...]
    """Sentences about consequences that are easy to miss."""

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        plain = dataclasses.asdict(dataclasses.replace(self, schedule=None, curve=None))
        curve = None if self.curve is None else self.curve.tolist()
        return {**plain, "schedule": self.schedule and str(self.schedule), "curve": curve}


def plan(
    config: TrainingConfig,
    *,
    dataset_size: int | None = None,
    num_processes: int | None = None,
    accelerate_config: str | None = None,
) -> Plan:
    """Compute what a run with these arguments will do.

    Args:
        config: The arguments.
        dataset_size: Samples of the training data (with `packing`: packed sequences). None to count a local or cached
            dataset, or to plan without the number if `max_steps` is set.
        num_processes: The number of processes. None for the number in the Accelerate configuration, or 1.
        accelerate_config: The file for `accelerate launch --config_file`. None for the one that the arguments name.

    Raises:
        ValueError: An argument is wrong, or the length of the run is unknown.

    Example:
        >>> config = TrainingConfig("sft", {"max_steps": 100, "lr_scheduler_type": "cosine_floor"})
        >>> plan(config).num_training_steps
        100
    """
    config, trained, notes = _with_cooldown(config)
    _check_warmup_ratio(config)
    processes = find_world_size(config, num_processes, accelerate_config)
    samples = find_dataset_size(config, dataset_size)
    batching = Batching.read(config, processes.processes)
    generations = Generations.read(config, batching) if config.kind in GENERATING else None
    length = _length(config, batching, generations, samples)

    name, arguments, warmup = *_schedule_of(config), _warmup_steps(config, length.num_training_steps)
    peak = config.read_value("learning_rate", Number(0))
    schedule, curve = _curve(name, arguments, length, warmup, peak)
    events = find_events(config, length, trained)
    if generations and events.evaluations != ():
        generations.check_evaluation(config, processes.processes)
    limit = config.get("save_total_limit", Whole(-1))
    limit = limit if limit is not None and limit > 0 else None
    notes += notes_on_data(config, samples)
    notes += notes_on_batches(config, batching, generations, samples.samples, length)
    notes += notes_on_events(config, events, curve)
    # The schedules that depend on metrics start at the peak.
    first, highest, last = (peak, peak, None) if curve is None else (curve[0], curve.max(), curve[-1])
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
        split_batches=batching.split_batches,
        world_size=processes,
        dataset_size=samples,
        schedule_name=name,
        schedule_arguments=arguments,
        schedule=schedule,
        curve=curve,
        phases=_phases(name, schedule, curve, warmup),
        first_lr=float(first),
        peak_lr=float(highest),
        last_lr=None if last is None else float(last),
        checkpoints=events.checkpoints,
        checkpoints_kept=events.checkpoints and events.checkpoints[-limit if limit else 0 :],
        save_total_limit=limit,
        output_dir=config.get("output_dir") or "trainer_output",
        saves_model=config.kind != "trainer",
        evaluations=events.evaluations,
        grpo=generations and generations.in_run(length, samples.samples),
        notes=tuple(notes),
    )


def assumptions(config: TrainingConfig, processes: WorldSize | None) -> tuple[str, ...]:
    """What is assumed about a run because nothing specifies it: "kind sft (has `max_length`)", "1 process"."""
    kind = (f"kind {config.kind} ({config.kind_reason})",) if config.kind_reason else ()
    return (*kind, "1 process") if processes and processes.assumed else kind


def _with_cooldown(config: TrainingConfig) -> tuple[TrainingConfig, int, list[str]]:
    """The arguments of a cooldown that starts from a checkpoint (`anneal_from`), and the steps of the checkpoint."""
    checkpoint = config.given.get("anneal_from")
    if checkpoint is None:
        return config, 0, []
    from hf_sched.scheduler.anneal import anneal_from

    kwargs = config.mapping("lr_scheduler_kwargs")
    floors = {name: kwargs[name] for name in ("floor_ratio", "min_lr") if kwargs.get(name) is not None}
    given = {name: config.given.get(f"anneal_{name}") for name in ("duration", "shape")}
    cooldown = anneal_from(checkpoint, **{name: value for name, value in given.items() if value}, **floors)
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    trained = int(state["global_step"])
    note = (
        f"The run continues from {checkpoint} after {trained} steps; schedule, learning rate and length "
        "are those of the cooldown."
    )
    return dataclasses.replace(config, given={**config.given, **cooldown}), trained, [note]


def _check_warmup_ratio(config: TrainingConfig) -> None:
    # transformers 5 ignores the old key, and the plan would silently be one without warmup.
    ratio = config.given.get("warmup_ratio")
    if ratio and "warmup_ratio" not in config.fields:
        raise ArgumentError(
            "warmup_ratio",
            received=ratio,
            rule="was removed from transformers",
            hint=f"write `warmup_steps: {ratio}`, a share of the run if it is below 1",
        )


def _length(
    config: TrainingConfig, batching: Batching, generations: Generations | None, samples: DatasetSize
) -> RunLength:
    max_steps = config.read_value("max_steps", Whole(-1))
    if max_steps == 0:
        raise ArgumentError("max_steps", "1 or more, or -1 to use `num_train_epochs`", 0)
    epochs = config.read_value("num_train_epochs", Number(0, above_low=max_steps < 0))
    if samples.samples is None:
        if max_steps < 0:
            packed = ", N packed sequences," if config.get("packing") else ""
            remedy = f"Give `--dataset-size N`{packed} or write `max_steps`"
            raise ValueError(
                "the number of optimizer steps is unknown without the number of samples: "
                f"{samples.source}. {'Write `max_steps`' if samples.streamed else remedy}"
            )
        return RunLength.of(None, batching.accumulation, max_steps, epochs)
    batches = (generations or batching).batches_per_epoch(samples.samples)
    if batches == 0:
        needed, what = batching.samples_at_once, "samples of a batch on every process"
        if generations:
            needed, what = generations.prompts_per_generation, "prompts of a generation"
        raise ArgumentError(
            "per_device_train_batch_size",
            received=batching.batch_size,
            rule=f"requires the {needed} {what}, but the dataset has {samples.samples} ({samples.source})",
            hint="make it smaller",
        )
    return RunLength.of(batches, batching.accumulation, max_steps, epochs)


def _schedule_of(config: TrainingConfig) -> tuple[str, dict[str, Any]]:
    value = config.value("lr_scheduler_type")
    name = str(getattr(value, "value", value))
    if name not in (*registry.available(), *registry.BUILTIN_NAMES):
        raise registry.unknown_schedule(name)
    return name, split_on_resume(config.mapping("lr_scheduler_kwargs"))[1]


def _warmup_steps(config: TrainingConfig, num_training_steps: int) -> int:
    from transformers import TrainingArguments

    requested = {"warmup_steps": config.read_value("warmup_steps", Number(0))}
    if "warmup_ratio" in config.fields:
        requested["warmup_ratio"] = config.get("warmup_ratio", Number(0, 1)) or 0.0
    return int(TrainingArguments.get_warmup_steps(SimpleNamespace(**requested), num_training_steps))


def _curve(
    name: str, arguments: dict[str, Any], length: RunLength, warmup: int, peak: float
) -> tuple[Schedule | None, Array | None]:
    total = length.num_training_steps
    if name not in registry.available():
        from hf_sched.integrations import builtin_schedules

        return None, builtin_schedules.curve(
            name, num_training_steps=total, num_warmup_steps=warmup, peak=peak, **arguments
        )
    try:
        schedule = registry.entry(name).build(total, warmup, arguments, length.steps_per_epoch)
    except EpochsUnknown as error:
        raise EpochsUnknown(error.name, rule=error.rule, hint="give `--dataset-size N`") from None
    return schedule, schedule.curve(peak=peak)


def _phases(name: str, schedule: Schedule | None, curve: Array | None, warmup: int) -> tuple[PlannedPhase, ...]:
    if curve is None:
        return ()
    if schedule is not None:
        parts = [(part.kind, part.first, part.steps, part.shape.name) for part in schedule.segments]
        named = [(kind if kind == "hold" else f"{kind}, {shape}", first, steps) for kind, first, steps, shape in parts]
    else:
        warmup = min(warmup, len(curve)) if name != "constant" else 0
        named = [("warmup, linear", 0, warmup), (name, warmup, len(curve) - warmup)]
    return tuple(
        PlannedPhase(phase, first, steps, float(curve[first]), float(curve[first + steps - 1]))
        for phase, first, steps in named
        if steps
    )
