"""What every recipe does with its trainer: load the model as asked, train, save."""

from __future__ import annotations

from typing import Any

import hf_sched


def model_init_kwargs(training_args: Any, model_args: Any) -> dict[str, Any]:
    """How the trainer is to load the model: TRL's ModelConfig, and `model_init_kwargs`, which win."""
    return {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }


def train_and_save(trainer: Any, *, checkpoint: str | None, dataset_name: str | None) -> None:
    """Train, from a checkpoint if there is one, and log every group's learning rate; save all; push if asked to."""
    trainer.add_callback(hf_sched.LearningRateLog())
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    trainer.save_model()
    if trainer.args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    trainer.accelerator.end_training()  # `trainer.end()` is this, from transformers 5.18 on
