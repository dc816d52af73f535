"""Training under all callbacks of the recipes, from start or checkpoint to the saved model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import hf_sched
from hf_sched.finetune.callbacks.divergence import DivergenceStop
from hf_sched.finetune.callbacks.grpo_diagnostics import GRPODiagnostics
from hf_sched.finetune.callbacks.peer_failure import explain_lost_process
from hf_sched.finetune.callbacks.preemption import EXIT_STATUS, CheckpointOnSigterm
from hf_sched.finetune.callbacks.progress import show_progress
from hf_sched.finetune.checkpoints.finished import RunFinished, StopIfFinished, save_state_if_missing
from hf_sched.finetune.provenance import write_provenance

logger = logging.getLogger(__name__)


def train_and_save(
    trainer: Any,
    *,
    checkpoint: str | None = None,
    dataset_name: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> int:
    """Train, save the model, and push it if `push_to_hub` is set.

    Args:
        trainer: A Trainer that has not trained yet.
        checkpoint: The checkpoint to resume from.
        dataset_name: For the model card on the hub.
        given: The arguments as they were written, for `run.json`.

    Returns:
        int: The exit status: 1 if the run diverged, 143 if SIGTERM stopped it; neither saves a model. Otherwise 0.
    """
    divergence, preemption = DivergenceStop(trainer), CheckpointOnSigterm(trainer)
    show_progress(trainer)
    logs = (hf_sched.LearningRateLog(), hf_sched.LiveControl())
    for callback in (StopIfFinished(), *logs, preemption, divergence, GRPODiagnostics()):
        trainer.add_callback(callback)
    write_provenance(trainer, checkpoint, given or {})
    result = None
    with explain_lost_process(trainer):
        try:
            result = trainer.train(resume_from_checkpoint=checkpoint)
            trainer.save_state()
        except RunFinished as finished:
            logger.info("%s", finished)
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            save_state_if_missing(trainer)
    is_main = trainer.is_world_process_zero()
    if divergence.reason is not None:
        status = 1
        if is_main:
            logger.error(divergence.message())
    elif preemption.stopped:
        status = EXIT_STATUS
        if is_main:
            logger.warning(preemption.message())
        # The first process to exit ends the others, which may still be writing their part of the checkpoint.
        trainer.accelerator.wait_for_everyone()
    else:
        status = 0
        if result is not None:
            trainer.log_metrics("train", result.metrics)
            trainer.save_metrics("train", result.metrics)
        trainer.save_model()
        if trainer.args.push_to_hub:
            trainer.push_to_hub(dataset_name=dataset_name)
    trainer.accelerator.end_training()  # `trainer.end()` exists from transformers 5.18 on and does the same
    return status
