"""Tiny trainings by transformers' Trainer that record the learning rates they use, and the expected curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import AutoModelForCausalLM, HfArgumentParser, Trainer, TrainerCallback, TrainingArguments

STEPS, WARMUP, PEAK = 12, 3, 1e-2
OURS, BUILTIN = {"lr_scheduler_type": "cosine_floor"}, {"lr_scheduler_type": "cosine"}
# A fused optimizer skips a step without telling Accelerate.
UNFUSED = {"optim": "adamw_torch", "max_grad_norm": 0.0}


class Recorder(TrainerCallback):
    """Records the learning rate of every group just before the optimizer uses it."""

    def __init__(self) -> None:
        self.used: list[list[float]] = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.used.append([float(group["lr"]) for group in optimizer.param_groups])


class Endless(IterableDataset):
    """Endless rows, so that the number of steps in an epoch is unknown."""

    def __iter__(self):
        return iter(lambda: {"input_ids": torch.arange(6, 16), "labels": torch.arange(6, 16)}, None)


def make(
    model_path: Path,
    folder: Path,
    *,
    cls: type[Trainer] = Trainer,
    data: object = None,
    rows: int = 64,
    optimizers: Callable[..., Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    recorder: Recorder | None = None,
    from_command_line: bool = False,
    **given: Any,
) -> tuple[Trainer, Recorder]:
    """A Trainer for a tiny Llama, and its recorder; `optimizers` is called with the model."""
    tokens = torch.randint(6, 16, (rows, 12), generator=torch.Generator().manual_seed(0))
    arguments = {
        **{"output_dir": str(folder), "use_cpu": True, "report_to": "none", "logging_steps": 1},
        **{"max_steps": STEPS, "warmup_steps": WARMUP, "learning_rate": PEAK, "per_device_train_batch_size": 4},
        **{"save_strategy": "no", **given},
    }
    if from_command_line:
        flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(flags)
    else:
        args = TrainingArguments(**arguments)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path)  # after the arguments, which can shard it
    recorder = recorder or Recorder()
    trainer = cls(
        model,
        args,
        train_dataset=data or [{"input_ids": row, "labels": row} for row in tokens],
        optimizers=optimizers(model) if optimizers else (None, None),
        callbacks=[recorder, *callbacks],
    )
    return trainer, recorder


def train(model_path: Path, folder: Path, *, resume: str | None = None, **given: Any) -> tuple[Trainer, np.ndarray]:
    """Train; the Trainer, and the learning rates that it used, of shape (steps, groups)."""
    trainer, recorder = make(model_path, folder, **given)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, np.array(recorder.used)


def two_groups(model: torch.nn.Module, tensors: bool = False) -> tuple[torch.optim.Optimizer, None]:
    """An optimizer with a second group at a sixteenth of the peak."""
    names = dict(model.named_parameters())
    rates = [torch.tensor(rate) for rate in (PEAK, PEAK / 16)] if tensors else [PEAK, PEAK / 16]
    parts = [[p for name, p in names.items() if ("norm" in name) == norm] for norm in (False, True)]
    groups = [{"params": part, "lr": rate} for part, rate in zip(parts, rates, strict=True)]
    return torch.optim.AdamW(groups, foreach=False), None


def logged(trainer: Trainer, key: str) -> list[float]:
    return [row[key] for row in trainer.state.log_history if key in row]


def cosine_floor(k: int, steps: int = STEPS, warmup: int = WARMUP, peak: float = PEAK, floor: float = 0.1) -> float:
    """The rate of step `k` by the formula, written independently of hf_sched."""
    if k < warmup:
        return peak * (k + 1) / warmup
    k = min(k, steps - 1)
    return peak * (floor + (1 - floor) * (1 + np.cos(np.pi * (k - warmup + 1) / (steps - warmup))) / 2)


def builtin_cosine(k: int, steps: int = STEPS) -> float:
    """The rate of step `k` under transformers' `cosine`."""
    return PEAK * k / WARMUP if k < WARMUP else PEAK * (1 + np.cos(np.pi * (k - WARMUP) / (steps - WARMUP))) / 2
