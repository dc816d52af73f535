"""Trains several runs under DeepSpeed, one after another in the same processes; torchrun starts it in tests.

    train_under_deepspeed.py MODEL RUNS.json OUT.json

`RUNS.json` is a list of training arguments, optionally with `resume` (a checkpoint). `OUT.json` gets one result per
run: the learning rates that torch's optimizer used, or the error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

import hf_sched  # noqa: F401


class AtTheOptimizer(TrainerCallback):
    """Records the rate inside torch's optimizer, because DeepSpeed steps it without the Trainer."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        optimizer.register_step_pre_hook(lambda inner, *_: self.used.append(float(inner.param_groups[0]["lr"])))


def train(model_path: str, given: dict[str, Any]) -> dict[str, Any]:
    resume = given.pop("resume", None)
    args = TrainingArguments(
        **{"use_cpu": True, "report_to": "none", "bf16": False, "disable_tqdm": True, "logging_steps": 1}
        | {"per_device_train_batch_size": 4, "save_strategy": "no"}
        | given
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    tokens = torch.randint(6, 16, (128, 12), generator=torch.Generator().manual_seed(0))
    seen = AtTheOptimizer()
    trainer = Trainer(
        model,
        args,
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        callbacks=[seen],
    )
    trainer.train(resume_from_checkpoint=resume)
    return {
        "used": seen.used,
        "logged": [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row],
        "world_size": args.world_size,
        "wrapped": type(trainer.lr_scheduler).__name__,
    }


def main() -> None:
    model_path, runs, out = sys.argv[1:]
    results = []
    for given in json.loads(Path(runs).read_text()):
        try:
            results.append(train(model_path, given))
        except Exception as error:
            results.append({"error": f"{type(error).__name__}: {error}"})
    if os.environ["RANK"] == "0":
        Path(out).write_text(json.dumps(results))
    gc.collect()  # Python can abort at exit if something still holds a process group of gloo
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
