"""Keeps a finished run from training further when it is started again, also one that early stopping has ended.

The Trainer checks for the end of a run after a step, not before one, so it would train one step past the schedule. It
also starts the count of early stopping anew, and would train until the patience is used up once more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import ExportableState

from hf_sched._run_files import read_trainer_state


class RunFinished(Exception):
    """Raised where training would begin if the loaded checkpoint is the end of the run."""


class StopIfFinished(TrainerCallback):
    """Raises `RunFinished` if no steps are left, or if early stopping has ended the run."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            raise RunFinished(
                f"all {state.max_steps} optimizer steps are done: nothing is left to train. To train longer, raise "
                '`max_steps` or `num_train_epochs`, and add `--lr_scheduler_kwargs \'{"on_resume": "rewarm"}\'`, or '
                "another `on_resume`, to choose the learning rate of the additional steps"
            )
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                patience = callback.early_stopping_patience
                if callback.early_stopping_patience_counter >= patience:
                    raise RunFinished(
                        f"early stopping ended the run at step {state.global_step}: nothing is left to train. To train "
                        f"longer, raise `early_stopping_patience` above {patience}"
                    )


def restore_callbacks(trainer: Any, checkpoint: str) -> None:
    """Restore what callbacks have counted, such as early stopping; their arguments stay those of this run.

    The Trainer does so only with `restore_callback_states_from_checkpoint`, and then restores the arguments as well.
    """
    trainer.args.restore_callback_states_from_checkpoint = False
    states = read_trainer_state(Path(checkpoint) / "trainer_state.json").get("stateful_callbacks") or {}
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ExportableState) and type(callback).__name__ in states:
            vars(callback).update(states[type(callback).__name__]["attributes"])
