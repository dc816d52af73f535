"""What every recipe does with its trainer: load the model as requested, train, save."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

import hf_sched
from hf_sched.finetune.callbacks.divergence import DivergenceStop
from hf_sched.finetune.callbacks.grpo_diagnostics import Advice
from hf_sched.finetune.callbacks.peer_failure import explain_lost_process
from hf_sched.finetune.callbacks.preemption import EXIT_STATUS, CheckpointOnSigterm
from hf_sched.finetune.callbacks.progress import show_progress
from hf_sched.finetune.checkpoints.finished import NothingLeft, StopIfFinished, save_state_if_other
from hf_sched.finetune.evaluation.generation_cache import adapter_base
from hf_sched.finetune.provenance import write_provenance


def check_model(model_args: Any) -> None:
    """Refuse a model that is not there, before anything is loaded.

    Raises:
        ValueError: It is no model, or an adapter.
    """
    name, revision = model_args.model_name_or_path, model_args.model_revision
    if not name:
        raise ValueError("`model_name_or_path` must be given: a hub name, or the folder of a model")
    if (folder := Path(name).expanduser()).is_dir() and adapter_base(name) and not (folder / "config.json").is_file():
        raise ValueError(
            f"`model_name_or_path` must be a whole model, but {name!r} holds a LoRA adapter: merge it first, `hf-sched "
            f"merge {name} --output {folder}_merged`, and give that folder"
        )
    try:
        if cached_file(name, "config.json", revision=revision) is None:
            raise OSError("it has no config.json")
    except OSError as error:
        raise ValueError(
            f"`model_name_or_path` must be a hub name or the folder of a model, received {name!r}: "
            + " ".join(str(error).split())
        ) from error


def model_init_kwargs(training_args: Any, model_args: Any) -> dict[str, Any]:
    """How the trainer is to load the model: TRL's ModelConfig, and `model_init_kwargs`, which win."""
    return {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }


def train_and_save(trainer: Any, *, checkpoint: str | None, dataset_name: str | None) -> int:
    """Train, from a checkpoint if there is one, under watch; save all; push if asked to.

    Returns:
        int: The exit status: 1 for a run that diverged, 143 for one that SIGTERM stopped; neither saves a model.
    """
    divergence, preemption = DivergenceStop(trainer), CheckpointOnSigterm(trainer)
    show_progress(trainer)
    watching = (hf_sched.LearningRateLog(), hf_sched.LiveControl(), preemption, divergence, Advice())
    for callback in (StopIfFinished(), *watching):
        trainer.add_callback(callback)
    write_provenance(trainer, checkpoint)
    result, message = None, None
    with explain_lost_process(trainer):
        try:
            result = trainer.train(resume_from_checkpoint=checkpoint)
            trainer.save_state()
        except NothingLeft as finished:
            message = str(finished)
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
            save_state_if_other(trainer)
    if divergence.found is not None:
        status, message = 1, f"error: {divergence.message()}"
    elif preemption.stopped:
        status, message = EXIT_STATUS, preemption.message()
        # Whoever ends first takes the others with it, and they may still be writing their part of the checkpoint.
        trainer.accelerator.wait_for_everyone()
    else:
        status = 0
        if result is not None:
            trainer.log_metrics("train", result.metrics)
            trainer.save_metrics("train", result.metrics)
        trainer.save_model()
        if trainer.args.push_to_hub:
            trainer.push_to_hub(dataset_name=dataset_name)
    if message and trainer.is_world_process_zero():
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    trainer.accelerator.end_training()  # `trainer.end()` is this, from transformers 5.18 on
    return status
