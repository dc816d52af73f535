"""Progress of a run: the Trainer's own bar with learning rate, loss and reward; in a log file, a line now and then."""

from __future__ import annotations

import io
import logging
import sys
import time
from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

from hf_sched.plots.console import wrapped

# Without a terminal, a line is written for a log record in each tenth of the run, and at least every 30 seconds.
SHARE, SECONDS = 0.1, 30.0

_SHOWN = {"learning_rate": "lr", "loss": "loss", "reward": "reward"}
_EVALUATED = ("loss", "mean_token_accuracy", "reward", "rewards/accuracies")


class Progress(ProgressCallback):
    """Shows steps, time left, learning rate, loss and reward on the main process."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.current_step = self._written_step = state.global_step
        self._written_at = time.monotonic()
        self._figures: dict[str, str] = {}
        self._is_terminal = sys.stderr.isatty()
        if state.is_world_process_zero:
            file = sys.stderr if self._is_terminal else io.StringIO()
            steps = {"total": state.max_steps, "initial": state.global_step, "unit": "step"}
            self.training_bar = tqdm(**steps, dynamic_ncols=True, leave=True, file=file)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.training_bar is not None:
            self.training_bar.total = state.max_steps  # a live cooldown lowers it
        super().on_step_end(args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self.training_bar is None:
            return
        self._figures |= {_SHOWN[key]: f"{logs[key]:.3g}" for key in _SHOWN if logs.get(key) is not None}
        self.training_bar.set_postfix(self._figures, refresh=False)
        tenth = max(1, round(SHARE * state.max_steps))
        is_due = state.global_step // tenth > self._written_step // tenth
        if is_due or time.monotonic() - self._written_at >= SECONDS:
            self._write_line(state)
        if evaluated := [key for key in _EVALUATED if f"eval_{key}" in logs]:
            figures = ", ".join(f"{key} {logs[f'eval_{key}']:.4g}" for key in evaluated)
            _write(f"evaluation at step {state.global_step}: {figures}")

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if sys.stderr.isatty():
            super().on_prediction_step(args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.training_bar is not None:
            self._write_line(state)
            super().on_train_end(args, state, control, **kwargs)

    def _write_line(self, state: Any) -> None:
        if not self._is_terminal and state.global_step > self._written_step:
            self._written_step, self._written_at = state.global_step, time.monotonic()
            _write(str(self.training_bar))


def show_progress(trainer: Any) -> None:
    """Replace the Trainer's progress, which writes a line for each log record; `disable_tqdm: true` shows nothing."""
    for other in {PrinterCallback, ProgressCallback, DEFAULT_PROGRESS_CALLBACK}:
        trainer.remove_callback(other)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(Progress())


class StandardErrorHandler(logging.Handler):
    """Writes log records to standard error, above a progress bar: each warning once, wrapped on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname}: {record.getMessage()}"
        if record.levelno == logging.WARNING and text in self._warned:
            return
        self._warned.add(text)
        _write(wrapped(text, sys.stderr))


def _write(text: str) -> None:
    with suppress(OSError):  # standard error may go to a file on a full disk
        tqdm.write(text, file=sys.stderr)
