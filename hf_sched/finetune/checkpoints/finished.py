"""Keeps a finished run from training further when it is started again.

The Trainer checks for the end of a run after a step, not before one, so it would train one step past the schedule.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class RunFinished(Exception):
    """Raised where training would begin if the loaded checkpoint is the end of the run."""


class StopIfFinished(TrainerCallback):
    """Raises `RunFinished` if no steps are left; under `load_best_model_at_end` the Trainer has to choose a model."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps and not args.load_best_model_at_end:
            raise RunFinished(
                f"all {state.max_steps} optimizer steps are done: nothing is left to train. To train longer, raise "
                "`max_steps` or `num_train_epochs`, and set `on_resume` in `lr_scheduler_kwargs` to choose the "
                "learning rate of the additional steps"
            )
