"""SkyRL's FSDP strategy makes and steps the optimizer and the scheduler: `train_skyrl.py OUTPUT_DIR`.

Its trainers need CUDA, so the loop is here, and the model is not sharded.
"""

import json
import sys
import typing
from pathlib import Path

import torch
import typing_extensions
import without_flash_attention  # noqa: F401

typing.TypedDict = typing_extensions.TypedDict  # pydantic needs it before Python 3.12, for which SkyRL is declared

from skyrl.backends.skyrl_train.distributed.fsdp_strategy import FSDPStrategy  # noqa: E402
from skyrl.train.config import FSDPConfig, OptimizerConfig  # noqa: E402


class UnshardedStrategy(FSDPStrategy):
    def _fsdp_init_model(self, model, is_train=True, is_wrapped=False):
        return model


config = OptimizerConfig(lr=1e-3, num_warmup_steps=2, scheduler="cosine_floor:floor_ratio=0.2")
strategy = UnshardedStrategy(FSDPConfig(), config, num_training_steps=8)
model, optimizer, scheduler = strategy.prepare((torch.nn.Linear(2, 1), None, None))
rates = []
for _ in range(8):
    rates.append(optimizer.param_groups[0]["lr"])
    model(torch.ones(2, 2)).square().mean().backward()
    strategy.optimizer_step(optimizer, model, scheduler)
(Path(sys.argv[1]) / "rates-0.json").write_text(json.dumps(rates))
