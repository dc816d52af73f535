"""Saves a checkpoint when the run receives SIGTERM (preemption, a time limit), and exits with status 143.

`enable_jit_checkpoint: true` turns it on. It replaces transformers' JITCheckpointCallback, under which two processes
that received the signal a second apart hung without a checkpoint, and a stopped run ended like a complete one.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from transformers import TrainerCallback

from hf_sched.finetune.callbacks.divergence import on_any_process

# The status that a shell reports for a process that SIGTERM ended; with 0 a job scheduler would see a finished run.
EXIT_STATUS = 128 + signal.SIGTERM


class CheckpointOnSigterm(TrainerCallback):
    """After SIGTERM to any process, all save a checkpoint at the end of the same optimizer step and stop there."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.stopped = False
        """Whether the run was stopped before its end."""
        self._received = False
        self._process = os.getpid()
        self._enabled = getattr(trainer.args, "enable_jit_checkpoint", False)  # not in transformers 4
        if self._enabled:
            from transformers.trainer_jit_checkpoint import JITCheckpointCallback

            theirs = trainer.pop_callback(JITCheckpointCallback)
            theirs.on_train_end(trainer.args, trainer.state, trainer.control)  # restores the signal handler
            self._previous = signal.signal(signal.SIGTERM, self._handle)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._enabled and state.global_step < state.max_steps and on_any_process(args.device, self._received)[0]:
            self.stopped = control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # there may not be enough time

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the signal handler: nothing after the training has checkpoints."""
        if self._enabled and not self.stopped:
            signal.signal(signal.SIGTERM, self._previous)

    def message(self) -> str:
        """Return what happened and how to resume."""
        state = self.trainer.state
        return (
            f"stopped by SIGTERM after step {state.global_step} of {state.max_steps}, with a checkpoint in "
            f"{self.trainer.args.output_dir}; the same command with `--resume_from_checkpoint auto` resumes from it"
        )

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() == self._process:
            self._received = True
        else:  # a forked process, such as a data loader: end it as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
