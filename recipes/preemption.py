"""A run that is told to end (SIGTERM: preemption, a time limit) saves a checkpoint first, and says that it is not done.

`enable_jit_checkpoint: true` asks for it. Transformers' own JITCheckpointCallback is replaced: it has each process stop
where its own clock says (two that were told a second apart hung, without a checkpoint), and lets the run end as one
that is finished does: model saved, exit status 0.
"""

from __future__ import annotations

import signal
from typing import Any

from transformers import TrainerCallback

from divergence import on_any_process

# What a shell makes of a process that SIGTERM ended. Not 0, or a scheduler would take the run for finished.
EXIT_STATUS = 128 + signal.SIGTERM


class CheckpointOnSigterm(TrainerCallback):
    """After SIGTERM to any process, all save a checkpoint at the end of the same optimizer step and stop there.

    Args:
        trainer: The trainer it is a callback of; asks for nothing where `enable_jit_checkpoint` does not.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.stopped = False
        """Whether the run was stopped before its end."""
        self._told = False
        self._wanted = getattr(trainer.args, "enable_jit_checkpoint", False)  # transformers 4 has none
        if self._wanted:
            from transformers.trainer_jit_checkpoint import JITCheckpointCallback

            trainer.remove_callback(JITCheckpointCallback)
            signal.signal(signal.SIGTERM, self._tell)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop, on all processes if one was told to; a run that is through ends as usual."""
        if self._wanted and state.global_step < state.max_steps and on_any_process(self._told, args.device):
            self.stopped = control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # there may not be the time

    def message(self) -> str:
        """What happened, and how to go on."""
        state = self.trainer.state
        return (
            f"stopped by SIGTERM after step {state.global_step} of {state.max_steps}, with a checkpoint in "
            f"{self.trainer.args.output_dir}: the same command with `--resume_from_checkpoint auto` goes on from it"
        )

    def _tell(self, number: int, frame: Any) -> None:
        self._told = True
