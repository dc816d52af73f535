"""OpenRLHF's DeepSpeed strategy makes the optimizer and the scheduler: `train_openrlhf.py OUTPUT_DIR`.

Its trainers need CUDA, so the loop is here.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import deepspeed
import torch
import without_flash_attention  # noqa: F401
from openrlhf.utils.deepspeed import DeepspeedStrategy

deepspeed.init_distributed()
world_size = int(os.environ["WORLD_SIZE"])
args = SimpleNamespace(ds=SimpleNamespace(param_dtype="fp32"), train=SimpleNamespace())
strategy = DeepspeedStrategy(micro_train_batch_size=2, train_batch_size=2 * world_size, args=args)
adam = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}
config = {"optim": "adam", "adam": adam, "scheduler_steps": 8}
config |= {"lr_scheduler": "cosine_floor:floor_ratio=0.2", "lr_warmup_ratio": 0.25}
model, optimizer, scheduler = strategy.prepare((torch.nn.Linear(2, 1), config))
rates = []
for _ in range(8):
    rates.append(optimizer.param_groups[0]["lr"])
    strategy.backward(model(torch.ones(2, 2)).square().mean(), model, optimizer)
    strategy.optimizer_step(optimizer, model, scheduler)
(Path(sys.argv[1]) / f"rates-{os.environ['RANK']}.json").write_text(json.dumps(rates))
