"""A run that is told to end (SIGTERM: preemption, a time limit) saves a checkpoint first, and says that it is not done.

`enable_jit_checkpoint: true` asks for it. Transformers' own JITCheckpointCallback is replaced: it has each process stop
where its own clock says (two that were told a second apart hung, without a checkpoint), and lets the run end as one
that is finished does: model saved, exit status 0.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from transformers import TrainerCallback

from hf_sched.finetune.callbacks.divergence import on_any_process

# What a shell makes of a process that SIGTERM ended. Not 0, or a scheduler would take the run for finished.
EXIT_STATUS = 128 + signal.SIGTERM


class CheckpointOnSigterm(TrainerCallback):
    """After SIGTERM to any process, all save a checkpoint at the end of the same optimizer step and stop there.

    Args:
        trainer: The trainer it is a callback of; without `enable_jit_checkpoint`, SIGTERM stays what it was.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.stopped = False
        """Whether the run was stopped before its end."""
        self._told = False
        self._process = os.getpid()
        self._wanted = getattr(trainer.args, "enable_jit_checkpoint", False)  # transformers 4 has none
        if self._wanted:
            from transformers.trainer_jit_checkpoint import JITCheckpointCallback

            theirs = trainer.pop_callback(JITCheckpointCallback)
            theirs.on_train_end(trainer.args, trainer.state, trainer.control)  # gives the signal back
            self._before = signal.signal(signal.SIGTERM, self._tell)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop, on all processes if one was told to; a run that is through ends as usual."""
        if self._wanted and state.global_step < state.max_steps and on_any_process(self._told, args.device):
            self.stopped = control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # there may not be the time

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signal back: what comes after the training has no checkpoints."""
        if self._wanted and not self.stopped:
            signal.signal(signal.SIGTERM, self._before)

    def message(self) -> str:
        """What happened, and how to go on."""
        state = self.trainer.state
        return (
            f"stopped by SIGTERM after step {state.global_step} of {state.max_steps}, with a checkpoint in "
            f"{self.trainer.args.output_dir}: the same command with `--resume_from_checkpoint auto` goes on from it"
        )

    def _tell(self, number: int, frame: Any) -> None:
        if os.getpid() == self._process:
            self._told = True
        else:  # a process that was forked: whoever ends it waits for it to end
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
