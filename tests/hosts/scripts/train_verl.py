"""verl's FSDP engine with another scheduler: `train_verl.py OUTPUT_DIR`.

The engine needs CUDA to load a model. Its methods make and step the optimizer and the scheduler alone.
"""

import json
import os
import sys
from pathlib import Path

import torch
from verl.workers.config import FSDPOptimizerConfig
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import FSDPEngineWithLMHead

import hf_sched


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor="nvidia")
class ScheduledEngine(FSDPEngineWithLMHead):
    def _build_lr_scheduler(self, optimizer):
        run = self.optimizer_config
        schedule = "cosine_floor:floor_ratio=0.2"
        return hf_sched.get_scheduler(schedule, optimizer, run.lr_warmup_steps, run.total_training_steps)


os.environ |= {"VERL_ENGINE_DEVICE": "cuda", "VERL_ENGINE_VENDOR": "nvidia"}
engine_class = EngineRegistry.get_engine_cls("language_model", "fsdp")
assert engine_class is ScheduledEngine
engine = engine_class.__new__(engine_class)
engine.optimizer_config = FSDPOptimizerConfig(lr=1e-3, lr_warmup_steps=2, total_training_steps=8)
engine.optimizer = engine._build_optimizer(torch.nn.Linear(2, 1))
engine.lr_scheduler = engine._build_lr_scheduler(engine.optimizer)
rates = []
for _ in range(8):
    rates.append(engine.optimizer.param_groups[0]["lr"])
    engine.optimizer.step()
    engine.lr_scheduler_step()
(Path(sys.argv[1]) / "rates-0.json").write_text(json.dumps(rates))
