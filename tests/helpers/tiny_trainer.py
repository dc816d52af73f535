"""A plain Trainer on random tokens, trained as the recipes train theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from hf_sched.finetune.pipeline import train_and_save


class ModelTrainer(Trainer):
    """8 steps of 4 sequences, with a checkpoint after every second one.

    Callbacks with a method `after_backward(state, model)` are called before each optimizer step.
    """

    def __init__(self, model_path: Path, folder: Path, *callbacks: TrainerCallback, **given: Any) -> None:
        tokens = torch.randint(6, 16, (16, 12), generator=torch.Generator().manual_seed(0))
        arguments = {"max_steps": 8, "save_steps": 2, "logging_steps": 1, "disable_tqdm": True, "report_to": "none"}
        args = TrainingArguments(str(folder), use_cpu=True, per_device_train_batch_size=4, **{**arguments, **given})
        model = AutoModelForCausalLM.from_pretrained(model_path)
        rows = [{"input_ids": row, "labels": row} for row in tokens]
        super().__init__(model, args, train_dataset=rows, eval_dataset=rows[:8], callbacks=list(callbacks))

    def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, *args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if hasattr(callback, "after_backward"):
                callback.after_backward(self.state, model)
        return loss

    def run(self, checkpoint: str | None = None, **given: Any) -> int:
        """Train and save; return the exit status. Keywords are those of `train_and_save`."""
        return train_and_save(self, checkpoint, **given)


def steps_of(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder."""
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
