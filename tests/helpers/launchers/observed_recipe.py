"""Run a recipe and record the learning rates, losses and logits of each of its processes.

    accelerate launch ... tests/helpers/launchers/observed_recipe.py recipes/sft.py --config FILE.yaml

Writes into `output_dir` for each rank: `observed_RANK.json`, with the losses and the learning rates of torch's own
optimizer, and `observed_RANK.pt`, with the logits of the trained model on a few tokens before it is saved. With the
environment variable SIGTERM_AT, the last rank receives SIGTERM within this optimizer step, counted from 1. With
FULL_DISK_REQUEST_AT, rank 0 can write no file until the training ends, except for a cooldown request at this step.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from transformers import TrainerCallback

from tests.helpers.full_disk import set_full

FULL_DISK_REQUEST_AT = os.environ.get("FULL_DISK_REQUEST_AT")


class Observer(TrainerCallback):
    """Records the rates in torch's optimizer, inside all wrappers; then losses and logits."""

    def __init__(self) -> None:
        self.rates: dict[int, list[float]] = {}
        self.step = 0
        set_full(FULL_DISK_REQUEST_AT is not None and os.environ["RANK"] == "0")  # the data is loaded

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        while hasattr(optimizer, "optimizer"):  # of Accelerate and DeepSpeed
            optimizer = optimizer.optimizer
        optimizer.register_step_pre_hook(self.record)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step + 1
        if os.environ.get("SIGTERM_AT") == str(self.step) and args.process_index == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if str(self.step) == FULL_DISK_REQUEST_AT and args.process_index == 0:
            set_full(False)
            Path(args.output_dir, "cooldown.json").write_text('{"duration": 2}')
            set_full(True)

    def record(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # ZeRO steps one group after another.
        self.rates.setdefault(self.step, []).extend(float(group["lr"]) for group in optimizer.param_groups)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        set_full(False)
        seen = {
            "steps": list(self.rates),
            "rates": list(self.rates.values()),
            "losses": [row["loss"] for row in state.log_history if "loss" in row],
            "world_size": args.world_size,
            "sharded": any(hasattr(one, "ds_id") or hasattr(one, "to_local") for one in model.parameters()),
        }
        folder = Path(args.output_dir)
        (folder / f"observed_{args.process_index}.json").write_text(json.dumps(seen), encoding="utf-8")
        tokens = torch.randint(6, 16, (4, 12), generator=torch.Generator().manual_seed(0))  # of the sorting task
        model.eval()
        with torch.no_grad():
            logits = model(input_ids=tokens).logits
        torch.save({"tokens": tokens, "logits": logits.clone()}, folder / f"observed_{args.process_index}.pt")
        model.train()


if __name__ == "__main__":
    transformers.trainer.DEFAULT_CALLBACKS.append(Observer)
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")
