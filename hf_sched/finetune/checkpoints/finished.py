"""A run that is through and is started again is not trained any further.

The Trainer looks for the end of a run after a step, never before one: it would make one more, behind the end of its
schedule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class NothingLeft(Exception):
    """A checkpoint, with all that the trainer has loaded of it, is the end of the run."""


class StopIfFinished(TrainerCallback):
    """Raises NothingLeft where the training would begin, if all its steps are made."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look; which model is the best one, if that is requested at the end, the Trainer has to say."""
        if state.global_step >= state.max_steps and not args.load_best_model_at_end:
            raise NothingLeft(
                f"all {state.max_steps} optimizer steps are made: nothing is left to train. To train on, raise "
                "`max_steps` or `num_train_epochs`, and say by `on_resume` in `lr_scheduler_kwargs` what the learning "
                "rate shall do"
            )


def save_state_if_other(trainer: Any) -> None:
    """Write the trainer's state, unless the run did when it ended, with its last records, which no checkpoint has."""
    file = Path(trainer.args.output_dir) / "trainer_state.json"
    if not file.is_file() or json.loads(file.read_text(encoding="utf-8"))["global_step"] != trainer.state.global_step:
        trainer.save_state()
