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
from transformers import TrainerCallback

import hf_sched  # noqa: F401
from tests.helpers.trainer import logged, make


class AtTheOptimizer(TrainerCallback):
    """Records the rate inside torch's optimizer, because DeepSpeed steps it without the Trainer."""

    def __init__(self) -> None:
        self.used: list[float] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        optimizer.register_step_pre_hook(lambda inner, *_: self.used.append(float(inner.param_groups[0]["lr"])))


def train(model_path: str, given: dict[str, Any]) -> dict[str, Any]:
    resume, folder = given.pop("resume", None), Path(given.pop("output_dir"))
    seen = AtTheOptimizer()
    trainer, _ = make(Path(model_path), folder, rows=128, callbacks=[seen], bf16=False, disable_tqdm=True, **given)
    trainer.train(resume_from_checkpoint=resume)
    return {
        "used": seen.used,
        "logged": logged(trainer, "learning_rate"),
        "world_size": trainer.args.world_size,
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
