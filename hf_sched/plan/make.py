"""What a recipe will do, from its arguments alone: no model, no tokenizer and no device is touched.

`RunLength` counts the steps, `Generations` those of GRPO, `events` asks the Trainer when it saves and evaluates; here
all of it comes together with the schedule.
"""

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
from hf_sched.plan.generations import GENERATING, Generations
from hf_sched.plan.run_events import Events, events
from hf_sched.plan.run_length import Batching, RunLength
from hf_sched.plan.training_config import RECIPE_KEYS, RunConfig
from hf_sched.plan.world_size import LAUNCH_KEYS, WorldSize, find_world_size
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError, EpochsUnknown, Flag, Number, Whole, did_you_mean

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlannedPhase:
    """A stretch of the curve."""

    name: str
    first_step: int
    """Counted from 0."""
    steps: int
    first_lr: float
    """The learning rate that its first step trains with."""
    last_lr: float
    """That of its last step."""


@dataclass(frozen=True)
class GRPOPlan:
    """How often completions are made, and how many; also for RLOO."""

    num_generations: int
    """Completions of a prompt."""
    steps_per_generation: int
    num_iterations: int
    generation_batch_size: int
    """Completions that are made at once, on all processes together."""
    prompts_per_generation: int
    optimizer_steps_per_generation: float
    prompts_per_step: float
    """`completions_per_step / num_generations`; those that are trained on again (`num_iterations`) count again."""
    completions_per_step: int
    generations: int
    """How often the whole run generates."""
    prompts: int
    """Prompts that the whole run generates for, those of later epochs counted again."""
    completions: int
    """Completions that it makes."""
    prompts_left_out: int | None
    """Of each epoch, since they do not fill a generation; None where the number of prompts is not known."""


@dataclass(frozen=True)
class Plan:
    """What a run will do. Optimizer steps of a schedule count from 0, checkpoints and evaluations as they are named."""

    kind: str
    source: str
    num_training_steps: int
    steps_per_epoch: int | None
    """None, as `epochs`, where the number of samples is not known."""
    epochs: float | None
    """What the Trainer's `epoch` is at the end."""
    num_warmup_steps: int
    """What the Trainer gives to the schedule; its own warmup is among the phases."""
    effective_batch: int
    """Samples (GRPO: completions) of an optimizer step, on all processes together."""
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    split_batches: bool
    """Whether `per_device_train_batch_size` is that of all processes together."""
    world_size: WorldSize
    dataset_size: DatasetSize
    schedule_name: str
    schedule_arguments: Mapping[str, Any]
    schedule: Schedule | None
    """None for transformers' own."""
    curve: Array | None = field(compare=False, repr=False)
    """The learning rate of every step, float64 of shape (num_training_steps,); None where it depends on metrics."""
    phases: tuple[PlannedPhase, ...]
    first_lr: float | None
    peak_lr: float | None
    last_lr: float | None
    checkpoints: tuple[int, ...] | None
    """Steps after which one is written; None where that is not known."""
    checkpoints_kept: tuple[int, ...] | None
    """Those that `save_total_limit` leaves."""
    save_total_limit: int | None
    output_dir: str
    saves_model: bool
    """Whether the scripts of this kind save the model in `output_dir` when they end."""
    evaluations: tuple[int, ...] | None
    """Steps after which the run evaluates, 0 before the first; None where that is not known."""
    grpo: GRPOPlan | None
    notes: tuple[str, ...]
    """Sentences on what a reader might not expect."""

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        plain = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        nested = {name: dataclasses.asdict(plain[name]) for name in ("world_size", "dataset_size")}
        return {
            **plain,
            **nested,
            "schedule": self.schedule and str(self.schedule),
            "curve": None if self.curve is None else self.curve.tolist(),
            "phases": [dataclasses.asdict(phase) for phase in self.phases],
            "grpo": self.grpo and dataclasses.asdict(self.grpo),
        }


def plan(config: RunConfig, *, dataset_size: int | None = None, world_size: int | None = None) -> Plan:
    """What a run with these arguments will do.

    Args:
        config: The arguments.
        dataset_size: Samples in the training data (with `packing`: packed sequences); None to count them where they
            are local, or to do without if `max_steps` is given.
        world_size: Processes; None for what the launch line in the file says.

    Raises:
        ValueError: An argument is wrong, or the length of the run cannot be known; the message says what to write.
    """
    config, trained, notes = _with_cooldown(config)
    _refuse_renamed(config)
    processes = find_world_size(config, world_size)
    samples = find_dataset_size(config, dataset_size)
    batching = _batching(config, processes.processes)
    generations = Generations.read(config, batching) if config.kind in GENERATING else None
    length = _length(config, batching, generations, samples)

    name, arguments, warmup = *_schedule_of(config), _warmup_steps(config, length.num_training_steps)
    peak = config.read_value("learning_rate", Number(0))
    schedule, curve = _curve(name, arguments, length, warmup, peak)
    happens = events(config, length).after(trained)
    if generations and happens.evaluations != ():
        generations.check_evaluation(config, processes.processes)
    limit = config.get("save_total_limit", Whole(-1))
    limit = limit if limit is not None and limit > 0 else None
    notes += _notes(config, batching, generations, samples, length, happens, curve)
    # Of the schedules that depend on metrics, both start at the learning rate.
    first, highest, last = (peak, peak, None) if curve is None else (curve[0], curve.max(), curve[-1])
    return Plan(
        kind=config.kind,
        source=config.source,
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
        checkpoints=happens.checkpoints,
        checkpoints_kept=happens.checkpoints and happens.checkpoints[-limit if limit else 0 :],
        save_total_limit=limit,
        output_dir=config.get("output_dir") or "trainer_output",
        saves_model=config.kind != "trainer",
        evaluations=happens.evaluations,
        grpo=_grpo(generations, samples, length) if generations else None,
        notes=tuple(notes),
    )


def _with_cooldown(config: RunConfig) -> tuple[RunConfig, int, list[str]]:
    """The arguments as the recipes change them to branch a cooldown off a checkpoint, and the steps that this has."""
    checkpoint = config.given.get("anneal_from")
    if checkpoint is None:
        return config, 0, []
    from hf_sched.scheduler.anneal import anneal_from

    kwargs = _kwargs(config)
    floors = {name: kwargs[name] for name in ("floor_ratio", "min_lr") if kwargs.get(name) is not None}
    duration, shape = config.given.get("anneal_duration", "20%"), config.given.get("anneal_shape", "1-sqrt")
    cooldown = anneal_from(checkpoint, duration, shape, **floors)
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text(encoding="utf-8"))
    trained = int(state["global_step"])
    note = (
        f"The run goes on from {checkpoint}: its {trained} steps are done; schedule, learning rate and length "
        "are those of the cooldown."
    )
    return dataclasses.replace(config, given={**config.given, **cooldown}), trained, [note]


def _refuse_renamed(config: RunConfig) -> None:
    # A plan without the warmup that was requested would be wrong without a word.
    if config.given.get("warmup_ratio") and "warmup_ratio" not in config.fields:
        ratio = config.given["warmup_ratio"]
        raise ValueError(
            f"`warmup_ratio` is gone from this transformers, received {ratio!r}: write `warmup_steps: {ratio}`, a "
            "share of the run where it is below 1"
        )


def _batching(config: RunConfig, processes: int) -> Batching:
    size = config.read_value("per_device_train_batch_size", Whole(1))
    split = bool(_of_accelerator(config).get("split_batches"))
    if split and config.kind in GENERATING:
        raise ValueError(
            "`accelerator_config.split_batches` must be false for GRPO, whose `per_device_train_batch_size` is that of "
            "one process, received True: leave it out"
        )
    if split and size % processes:
        raise ValueError(
            f"`per_device_train_batch_size` is split over the {processes} processes (`split_batches`), so it must be a "
            f"multiple of that, received {size}: write {-(-size // processes) * processes}"
        )
    return Batching(
        size,
        processes,
        config.read_value("gradient_accumulation_steps", Whole(1)),
        drop_last=config.read_value("dataloader_drop_last", Flag()),
        split_batches=split,
        rebalanced=config.get("train_sampling_strategy") == "batch_rebalance" and config.kind not in GENERATING,
    )


def _of_accelerator(config: RunConfig) -> dict[str, Any]:
    given = config.get("accelerator_config")
    read: Any = given or {}
    try:
        if isinstance(given, str):
            read = json.loads(given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        read = None
    if not isinstance(read, Mapping):
        raise ArgumentError("accelerator_config", "a mapping, one in JSON, or a JSON file of one", given)
    return dict(read)


def _length(config: RunConfig, batching: Batching, generations: Generations | None, samples: DatasetSize) -> RunLength:
    max_steps = config.read_value("max_steps", Whole(-1))
    if max_steps == 0:
        raise ArgumentError("max_steps", "1 or more, or -1 to go by `num_train_epochs`", 0)
    epochs = config.read_value("num_train_epochs", Number(0, above_low=max_steps < 0))
    if samples.samples is None:
        if max_steps < 0:
            raise _length_unknown(config, samples)
        return RunLength.of(None, batching.accumulation, max_steps, epochs)
    batches = (generations or batching).batches_per_epoch(samples.samples)
    if batches == 0:
        needed, what = (
            (generations.prompts_per_generation, "prompts of a generation")
            if generations
            else (batching.effective_batch // batching.accumulation, "samples of a batch on every process")
        )
        raise ValueError(
            f"the dataset must have at least the {needed} {what}, received {samples.samples} ({samples.source}): "
            "make `per_device_train_batch_size` smaller"
        )
    return RunLength.of(batches, batching.accumulation, max_steps, epochs)


def _length_unknown(config: RunConfig, samples: DatasetSize) -> ValueError:
    without = f"the number of optimizer steps cannot be known without the number of samples: {samples.source}."
    if samples.streamed:
        return ValueError(f"{without} Write `max_steps`, as the Trainer needs it, too")
    packed = ", N packed sequences," if config.get("packing") else ""
    return ValueError(f"{without} Give `--dataset-size N`{packed} or write `max_steps`")


def _schedule_of(config: RunConfig) -> tuple[str, dict[str, Any]]:
    value = config.value("lr_scheduler_type")
    name = str(getattr(value, "value", value))
    if name not in (*registry.available(), *registry.BUILTIN_NAMES):
        raise ValueError(f"`lr_scheduler_type`: {registry.unknown_name(name)}")
    return name, split_on_resume(_kwargs(config))[1]


def _kwargs(config: RunConfig) -> Mapping[str, Any]:
    given = config.value("lr_scheduler_kwargs") or {}
    try:
        read = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError:
        read = None
    if not isinstance(read, Mapping):
        raise ArgumentError("lr_scheduler_kwargs", "a mapping, or one in JSON", given)
    return read


def _warmup_steps(config: RunConfig, num_training_steps: int) -> int:
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
        from hf_sched.integrations import builtin_schedules as builtin

        curve: Array | None = builtin.curve(
            name, num_training_steps=total, num_warmup_steps=warmup, peak=peak, **arguments
        )
        return None, curve
    try:
        schedule = registry.entry(name).build(total, warmup, arguments, length.steps_per_epoch)
    except EpochsUnknown as error:
        raise ValueError(
            f"{str(error).split(', but')[0]}, and nobody knows how many steps an epoch has: give `--dataset-size N`"
        ) from None
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


def _grpo(generations: Generations, samples: DatasetSize, length: RunLength) -> GRPOPlan:
    number, prompts = generations.generations_of(length), generations.prompts_per_generation
    return GRPOPlan(
        num_generations=generations.num_generations,
        steps_per_generation=generations.steps_per_generation,
        num_iterations=generations.num_iterations,
        generation_batch_size=generations.generation_batch_size,
        prompts_per_generation=prompts,
        optimizer_steps_per_generation=generations.optimizer_steps_per_generation,
        prompts_per_step=generations.prompts_per_step,
        completions_per_step=generations.completions_per_step,
        generations=number,
        prompts=number * prompts,
        completions=number * generations.generation_batch_size,
        prompts_left_out=None if samples.samples is None else samples.samples % prompts,
    )


def _notes(
    config: RunConfig,
    batching: Batching,
    generations: Generations | None,
    samples: DatasetSize,
    length: RunLength,
    happens: Events,
    curve: Array | None,
) -> list[str]:
    return [
        *_notes_on_keys(config),
        *_notes_on_data(config, samples),
        *_notes_on_batches(config, batching, generations, samples, length),
        *_notes_on_the_run(config, happens, curve),
    ]


def _notes_on_keys(config: RunConfig) -> list[str]:
    notes = []
    if config.kind != "trainer":  # a script of one's own has arguments of its own
        for key in config.given:
            if key not in config.fields and key not in (*RECIPE_KEYS, *LAUNCH_KEYS):
                notes.append(f"No argument is called `{key}`, so it is left out here{did_you_mean(key, config.fields)}")
    if config.read_value("max_steps", Whole(-1)) > 0 and "num_train_epochs" in config.given:
        notes.append("`max_steps` wins over `num_train_epochs`.")
    return notes


def _notes_on_data(config: RunConfig, samples: DatasetSize) -> list[str]:
    if samples.samples is None:
        return []
    if config.get("packing"):
        return [f"{samples.samples} samples are taken to be packed sequences (`packing`)."]
    dropping = {
        "sft": config.get("max_length") is not None,
        "dpo": config.get("truncation_mode") == "keep_start",
        "kto": config.get("truncation_mode") == "keep_start",
        "reward": True,
    }
    if dropping.get(config.kind) and config.get("max_length") is not None:
        what = "longer than" if config.kind == "reward" else "of which nothing is left to learn within"
        return [
            f"TRL drops samples {what} `max_length` {config.get('max_length')}; the {samples.samples:,} here are "
            "those before that."
        ]
    return []


def _notes_on_batches(
    config: RunConfig,
    batching: Batching,
    generations: Generations | None,
    samples: DatasetSize,
    length: RunLength,
) -> list[str]:
    notes = []
    uneven = length.batches_per_epoch and length.batches_per_epoch % batching.accumulation
    if uneven and length.num_training_steps >= (length.steps_per_epoch or 0):
        notes.append(f"The last optimizer step of an epoch has {uneven} of {batching.accumulation} batches.")
    if samples.samples is not None and not batching.rebalanced:
        notes += _notes_on_the_rest(batching, generations, samples.samples)
    if _of_accelerator(config).get("even_batches") is False and batching.world_size > 1 and not batching.drop_last:
        notes.append("With `even_batches: false` processes may have one batch less; counted are those of the first.")
    if config.get("auto_find_batch_size"):
        notes.append("`auto_find_batch_size` halves the batch where memory runs out; the steps then are others.")
    if config.get("group_by_length") or config.get("train_sampling_strategy") == "group_by_length":
        notes.append("Samples of like length are batched together, which changes no count.")
    return notes


def _notes_on_the_rest(batching: Batching, generations: Generations | None, samples: int) -> list[str]:
    if generations:
        rest, size = samples % generations.prompts_per_generation, generations.prompts_per_generation
        return [f"Each epoch leaves out {rest} of the {samples:,} prompts: a generation takes {size}."] if rest else []
    at_once = batching.effective_batch // batching.accumulation
    rest = samples % at_once
    if not rest:
        return []
    if batching.drop_last:
        return [f"Each epoch leaves out {rest} of the {samples:,} samples (`dataloader_drop_last`)."]
    if batching.world_size > 1:
        return [f"The last batches of an epoch have {rest} of {at_once} samples; they are filled up from its start."]
    return [f"The last batch of an epoch has {rest} of {at_once} samples."]


def _notes_on_the_run(config: RunConfig, happens: Events, curve: Array | None) -> list[str]:
    notes = []
    if curve is None:
        notes.append("The learning rate depends on metrics: only where it starts is known.")
    elif curve[0] == 0 and curve.max() > 0:
        notes.append("The first step trains at a learning rate of 0.")
    if config.get("resume_from_checkpoint") and not config.given.get("anneal_from"):
        notes.append("It resumes from a checkpoint: what was done before that is part of this plan.")
    if config.get("save_strategy") == "best":
        notes.append("A checkpoint is written whenever an evaluation is the best so far.")
    elif happens.checkpoints is None:
        notes.append("A checkpoint is written at the end of each epoch, after steps that cannot be known.")
    if happens.evaluations is None:
        notes.append("An evaluation is made at the end of each epoch, after steps that cannot be known.")
    if config.get("load_best_model_at_end") and config.get("save_total_limit"):
        notes.append("The best checkpoint is kept besides the latest ones, within `save_total_limit` or as one more.")
    return notes
