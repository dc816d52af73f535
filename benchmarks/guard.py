"""What the guard in the Trainer costs: the time it takes at a step, beside the time of the step.

    python benchmarks/guard.py             # a minute; prints Markdown

The model is about the smallest there is, on a CPU: a share of a step is nowhere larger than here.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from hf_sched.callbacks.guard import LearningRateGuard
from hf_sched.finetune.demo.sorting_task import save_model

STEPS, WARM_UP = 400, 50
EVENTS = ("on_step_begin", "on_pre_optimizer_step", "on_optimizer_step")


class Timed(LearningRateGuard):
    """The guard, with a clock around all it does at a step."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []
        self.begins: list[float] = []

    def _clock(self, event: str, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        getattr(super(), event)(*args, **kwargs)
        now = time.perf_counter()
        if event == "on_step_begin":
            self.begins.append(began)
            self.spent.append(0.0)
        self.spent[-1] += now - began

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._clock("on_step_begin", *args, **kwargs)

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._clock("on_pre_optimizer_step", *args, **kwargs)

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._clock("on_optimizer_step", *args, **kwargs)


def measure(model_path: Path, folder: Path, groups: int) -> tuple[float, float]:
    """The median times of the guard and of a whole step, in seconds; with this many parameter groups."""
    model = AutoModelForCausalLM.from_pretrained(model_path)
    parameters = list(model.parameters())
    parts = [[*parameters[number::groups]] for number in range(groups)]
    optimizer = torch.optim.AdamW([{"params": part, "lr": 1e-4 * (n + 1)} for n, part in enumerate(parts)])
    args = TrainingArguments(
        **{"output_dir": str(folder), "use_cpu": True, "report_to": "none", "save_strategy": "no"},
        **{"disable_tqdm": True, "logging_strategy": "no", "max_steps": STEPS, "per_device_train_batch_size": 8},
        **{"lr_scheduler_type": "cosine_floor", "warmup_steps": 10, "learning_rate": 1e-4},
    )
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(6, 16, (64, 16))]
    guard = Timed()
    trainer = Trainer(model, args, train_dataset=rows, optimizers=(optimizer, None), callbacks=[guard])
    trainer.remove_callback(LearningRateGuard)
    trainer.train()
    steps = [after - before for before, after in zip(guard.begins, guard.begins[1:], strict=False)]
    return statistics.median(guard.spent[WARM_UP:]), statistics.median(steps[WARM_UP:])


def main() -> None:
    """Print the table."""
    print("| parameter groups | the guard, µs a step | a whole step, µs | share |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder, "model"), layers=4, width=64, seed=0)
        for groups in (1, 2, 16):
            guard, step = measure(Path(folder, "model"), Path(folder, "out"), groups)
            print(f"| {groups} | {1e6 * guard:.0f} | {1e6 * step:.0f} | {guard / step:.2%} |")


if __name__ == "__main__":
    main()
