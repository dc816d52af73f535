"""Writes a commented configuration for a model, data and the devices of this machine (`hf-sched init`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any

import torch
from datasets import disable_progress_bars
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.check.finding import as_yaml
from hf_sched.check.peak import TASKS, model_size
from hf_sched.finetune.data.columns import USUAL_NAMES
from hf_sched.finetune.data.files import columns_of, load_splits
from hf_sched.finetune.data.load import data_fault
from hf_sched.finetune.memory.before_loading import CLOSE
from hf_sched.finetune.memory.estimate import estimate
from hf_sched.finetune.memory.run_settings import read_run
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.peak_range import peak_range
from hf_sched.schedules.recommend import recommend
from hf_sched.schedules.validation import ArgumentError

# Samples per optimizer step (GRPO: completions) on GPUs and on a CPU.
EFFECTIVE_BATCH = {"sft": (32, 8), "grpo": (64, 8), "dpo": (32, 8)}
EPOCHS = {"sft": 3, "grpo": 1, "dpo": 1}


@dataclass(frozen=True)
class Device:
    """The hardware that a configuration is written for."""

    name: str
    processes: int = 1
    memory: int | None = None
    """Bytes per GPU; None for a CPU."""

    @classmethod
    def find(cls) -> Device:
        """Find the GPUs of this machine, or its CPU."""
        if not torch.cuda.is_available():
            return cls("the CPU")
        gpu, count = torch.cuda.get_device_properties(0), torch.cuda.device_count()
        return cls(f"{count} x {gpu.name}", count, gpu.total_memory)


@dataclass(frozen=True)
class Data:
    """What a configuration needs to know about the data."""

    name: str
    columns: Mapping[str, str]
    """The recipe's column names and those of the data, where they differ."""
    rows: int
    has_test_split: bool

    @classmethod
    def inspect(cls, kind: str, name: str) -> Data:
        """Load the data and find the columns for a recipe (`sft`, `grpo` or `dpo`).

        Raises:
            ArgumentError: The data cannot be loaded, or the recipe cannot use them, whatever `columns` is.
        """
        disable_progress_bars()
        splits = load_splits(ScriptArguments(dataset_name=name), DatasetMixtureConfig(), "--data")
        train = splits.get("train", next(iter(splits.values())))
        columns: dict[str, str] = {}
        if fault := data_fault(kind, {"dataset_name": name}):
            found = columns_of(train)
            theirs = {one: next((word for word in words if word in found), one) for one, words in USUAL_NAMES.items()}
            columns = {one: word for one, word in theirs.items() if one != word}
            if not columns or data_fault(kind, {"dataset_name": name, "columns": columns}):
                raise fault
        return cls(name, columns, len(train), "test" in splits)


def starter_config(kind: str, model: str, data: Data, *, lora: bool, device: Device) -> str:
    """Return the YAML text of a configuration with comments.

    Args:
        kind: `sft`, `grpo` or `dpo`.
        model: Hub name or folder of the model.
        data: The data.
        lora: Whether to train an adapter instead of all weights.
        device: The hardware.
    """
    on_gpu, is_grpo = device.memory is not None, kind == "grpo"
    length = ("max_completion_length", 512 if on_gpu else 128) if is_grpo else ("max_length", 1024 if on_gpu else 512)
    group = {"num_generations": 8 if on_gpu else 4} if is_grpo else {}
    adapter = {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear"} if lora else {}
    hardware: dict[str, Any] = {"bf16": True} if on_gpu else {"bf16": False, "use_cpu": True}
    if lora and on_gpu:
        hardware["dtype"] = "bfloat16"  # of the frozen weights; the adapter is float32
    fixed = {"model_name_or_path": model, length[0]: length[1], **group, **adapter, **hardware}
    batch, fit = _batch(kind, fixed, device)
    accumulation = max(EFFECTIVE_BATCH[kind][not on_gpu] // (batch * device.processes), 1)
    effective = batch * accumulation * device.processes
    evaluates = not is_grpo and (data.has_test_split or data.rows >= 200)
    held_out = {"test_split_size": 0.05} if evaluates and not data.has_test_split else {}
    rows = data.rows - math.ceil(data.rows * held_out.get("test_split_size", 0))
    steps = math.ceil(rows * group.get("num_generations", 1) / effective) * EPOCHS[kind]
    width, layers = model_size(model)
    run: dict[str, Any] = {"width": width, "layers": layers, "batch_size": effective}
    rank: dict[str, Any] = {name: adapter[name] for name in ("lora_r", "lora_alpha") if lora}
    advice = recommend(task=kind, num_training_steps=steps)
    usual, full = peak_range(TASKS[kind], **run, **rank), peak_range(TASKS[kind], **run)
    schedule = {key: value for key, value in advice.training_arguments().items() if value != {}}
    every = max(steps // 10, 1)
    trained = "a LoRA adapter" if lora else "all weights"
    unit = "completions" if is_grpo else "samples"
    sections = (
        (f"Written by `hf-sched init` for {device.name}.", {"model_name_or_path": model, "dataset_name": data.name}),
        ("The recipe's column names and those of the data.", {"columns": dict(data.columns)} if data.columns else {}),
        ("Share of the rows that is held out, to measure the loss on it.", held_out),
        ("", {"output_dir": f"runs/my_{kind}"}),
        (
            "Rewards by name or as `module.function`; see docs/recipes.md.",
            {"reward_funcs": ["accuracy"]} if group else {},
        ),
        (f"{advice.reason} `hf-sched list` shows all schedules.", schedule),
        (
            f"Usual peaks to train {trained}: {usual}. The peak matters more than the shape.",
            {"learning_rate": usual.start},
        ),
        (f"{steps:,} optimizer steps of {effective} {unit}.", {"num_train_epochs": EPOCHS[kind]}),
        (fit, {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}),
        (
            "Choose attention, kernels and the split of the batch for the GPU at the start.",
            {"fast": True} if on_gpu else {},
        ),
        ("Completions per prompt.", group),
        (f"Tokens; longer {unit} are cut off.", dict([length])),
        (f"LoRA. To train all weights, remove these lines and set `learning_rate: {full.start:.1e}`.", adapter),
        (
            "",
            hardware
            | {"logging_steps": 1 if steps < 500 else 10}
            | ({"eval_strategy": "steps", "eval_steps": every} if evaluates else {})
            | {"save_steps": every, "save_total_limit": 2, "seed": 42},
        ),
    )
    return "\n".join(_section(comment, values) for comment, values in sections if values)


def _section(comment: str, values: Mapping[str, Any]) -> str:
    lines = wrap(comment, 110, initial_indent="# ", subsequent_indent="# ")
    lines += [f"{key}: {as_yaml(value)}" for key, value in values.items()]
    return "".join(f"{line}\n" for line in lines)


def _batch(kind: str, given: Mapping[str, Any], device: Device) -> tuple[int, str]:
    """The largest batch per device that is estimated to fit, and the reason for it."""
    if device.memory is None:
        return 4, "Per forward pass, and forward passes per optimizer step."
    get = TrainingConfig(kind, given).get
    try:
        run = read_run(kind, get, {}, device.processes, None, 512)
    except ArgumentError as error:
        return 4, f"Not estimated, because `{error.name}` {error.rule}. Try larger batches."
    batch = EFFECTIVE_BATCH[kind][0] // device.processes or 1
    while batch > 1 and _needs(run, batch, device) > CLOSE * device.memory:
        batch //= 2
    needs = _needs(run, batch, device) / 2**30
    return batch, f"Estimated to need {needs:.0f} of {device.memory / 2**30:.0f} GiB per GPU."


def _needs(run: Any, batch: int, device: Device) -> int:
    return estimate(replace(run, per_device_train_batch_size=batch, generated=batch), device.memory).total
