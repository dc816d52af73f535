"""Consequences of a configuration that are easy to miss, as sentences of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hf_sched.plan.dataset_size import DatasetSize
from hf_sched.plan.generations import Generations
from hf_sched.plan.launch import LAUNCH_KEYS
from hf_sched.plan.run_events import Events
from hf_sched.plan.run_length import Batching, RunLength
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import Whole, suggest


def notes_on_data(config: TrainingConfig, samples: DatasetSize) -> Iterator[str]:
    """Notes on unknown keys, the length and the samples."""
    if config.kind != "trainer":  # a script for the Trainer usually has more arguments
        for key in config.given:
            if key not in config.fields and key not in LAUNCH_KEYS:
                hint = suggest(key, config.fields)
                yield f"`{key}` is not an argument and is ignored here{f'; {hint}' if hint else '.'}"
    if config.read_value("max_steps", Whole(-1)) > 0 and "num_train_epochs" in config.given:
        yield "`max_steps` overrides `num_train_epochs`."
    if samples.samples is None:
        return
    keeps_start = config.get("truncation_mode") == "keep_start"
    drops = {"sft": True, "dpo": keeps_start, "kto": keeps_start, "reward": True}
    limit = config.get("max_length")
    if config.get("packing"):
        yield f"The {samples.samples} samples are taken as packed sequences (`packing`)."
    elif drops.get(config.kind) and limit is not None:
        what = "longer than" if config.kind == "reward" else "without trained tokens within"
        yield f"TRL drops samples {what} `max_length` {limit}; the {samples.samples:,} samples here include them."


def notes_on_batches(
    config: TrainingConfig, batching: Batching, generations: Generations | None, samples: int | None, length: RunLength
) -> Iterator[str]:
    """Notes on incomplete batches and on arguments that change their number."""
    uneven = length.batches_per_epoch and length.batches_per_epoch % batching.accumulation
    if uneven and length.num_training_steps >= (length.steps_per_epoch or 0):
        yield f"The last optimizer step of an epoch has {uneven} of {batching.accumulation} batches."
    size = generations.prompts_per_generation if generations else batching.samples_at_once
    if samples is not None and samples % size and not batching.rebalanced:
        rest = samples % size
        if generations:
            yield f"Each epoch drops {rest} of the {samples:,} prompts: a generation takes {size}."
        elif batching.drop_last:
            yield f"Each epoch drops {rest} of the {samples:,} samples (`dataloader_drop_last`)."
        elif batching.world_size > 1:
            yield f"The last batches of an epoch have {rest} of {size} samples and are filled up from its start."
        else:
            yield f"The last batch of an epoch has {rest} of {size} samples."
    if config.get("auto_find_batch_size"):
        yield "`auto_find_batch_size` halves the batch size if memory runs out, which changes these numbers."


def notes_on_events(config: TrainingConfig, events: Events, curve: Any) -> Iterator[str]:
    """Notes on the learning rate, checkpoints and evaluations."""
    if curve is None:
        yield "The learning rate depends on metrics; only its start is known."
    elif curve[0] == 0 and curve.max() > 0:
        yield "The first step trains at a learning rate of 0."
    if config.get("resume_from_checkpoint") and not config.given.get("anneal_from"):
        yield "The run resumes from a checkpoint; the plan includes the steps before it."
    if config.get("save_strategy") == "best":
        yield "A checkpoint is written after each evaluation that is the best so far."
    elif events.checkpoints is None:
        yield "A checkpoint is written at the end of each epoch; the steps of an epoch are unknown."
    if events.evaluations is None:
        yield "The run evaluates at the end of each epoch; the steps of an epoch are unknown."
