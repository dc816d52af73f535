"""A run's progress, its end in sight: one line that is rewritten in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text
from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

# The time a step takes is the mean of this many: it settles, and still follows as completions grow longer.
STEPS_TIMED = 100
# In a file: ten lines a run, and, where that would take long, a sign of life.
SHARE = 0.1
SECONDS = 30.0

# What is shown of what the Trainer logs, and as what.
_SHOWN = {"learning_rate": "lr", "loss": "loss", "reward": "reward"}
# Of an evaluation everything is, but how fast it was.
_SPEED = ("runtime", "per_second", "num_tokens")


class Progress(TrainerCallback):
    """Shows step, time left, learning rate, loss and reward on the main process; nothing with `disable_tqdm: true`.

    Args:
        file: Where to, by default standard error; what counts is whether that is a terminal.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file or sys.stderr
        self._bar: Any = None
        self._times: deque[tuple[int, float]] = deque(maxlen=STEPS_TIMED + 1)
        self._begun = 0.0
        self._values: dict[str, float] = {}
        self._written: tuple[int, float] | None = None
        self._due = False
        self._evaluated = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock, and the line."""
        self._begun = time.monotonic()
        self._times.clear()
        self._values = {}
        self._written = (state.global_step, self._begun)
        if self._shows(args, state) and self.file.isatty():
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                file=self.file,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}%|{bar:16}| {desc}",
            )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the step before, now that it has been logged."""
        self._show(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the time."""
        self._times.append((state.global_step, time.monotonic()))
        self._due = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep what is shown; an evaluation gets a line of its own."""
        logs = logs or {}
        self._values.update({_SHOWN[key]: logs[key] for key in _SHOWN if logs.get(key) is not None})
        evaluated = {key: value for key, value in logs.items() if key.startswith("eval_") and not key.endswith(_SPEED)}
        if evaluated and self._shows(args, state):
            self._write(f"evaluated at step {state.global_step} | {_figures(evaluated)}")

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Show how far an evaluation is, where there is a line to rewrite."""
        self._evaluated += 1
        if self._bar is not None:
            batches = f"/{len(eval_dataloader)}" if hasattr(eval_dataloader, "__len__") else ""
            self._bar.set_description_str(f"{self.line(state)} | evaluating {self._evaluated}{batches}")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go back to the training's line."""
        self._evaluated = 0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the last step, and leave it."""
        self._show(args, state, last=True)
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def line(self, state: Any) -> str:
        """Step, time and values, as far as they are known."""
        pace, gone = self._pace(), timedelta(seconds=round(time.monotonic() - self._begun))
        timing = f"{gone} gone"
        if pace is not None:
            left = timedelta(seconds=round(pace * (state.max_steps - state.global_step)))
            timing += f", {left} left, {pace:.3g} s/step"
        figures = _figures(self._values)
        return f"{state.global_step}/{state.max_steps} | {timing}{' | ' if figures else ''}{figures}"

    def _pace(self) -> float | None:
        """Seconds a step; the first one, which warms up, counts only until there is a second."""
        if not self._times:
            return None
        (first, start), (last, end) = self._times[0], self._times[-1]
        return (end - start) / (last - first) if last > first else end - self._begun

    def _show(self, args: Any, state: Any, last: bool = False) -> None:
        if not self._due or not self._shows(args, state):
            return
        self._due = False
        if self._bar is not None:
            self._bar.n, self._bar.total = state.global_step, state.max_steps  # which a cooldown lowers
            self._bar.set_description_str(self.line(state))
            return
        step, when = self._written or (0, self._begun)
        tenth = max(1, round(SHARE * state.max_steps))
        if last or state.global_step // tenth > step // tenth or time.monotonic() - when >= SECONDS:
            self._written = (state.global_step, time.monotonic())
            self._write(f"{100 * state.global_step / max(state.max_steps, 1):3.0f}% | {self.line(state)}")

    def _write(self, line: str) -> None:
        if self._bar is not None:
            tqdm.write(line, file=self.file)
        else:
            print(line, file=self.file, flush=True)

    def _shows(self, args: Any, state: Any) -> bool:
        return bool(state.is_world_process_zero and not args.disable_tqdm)


def show_progress(trainer: Any) -> None:
    """Give a trainer this progress, in the place of the Trainer's own: a line for each record of the log."""
    for other in {PrinterCallback, ProgressCallback, DEFAULT_PROGRESS_CALLBACK}:
        trainer.remove_callback(other)
    trainer.add_callback(Progress())


def warn(what: str) -> None:
    """Print a warning above the line of progress."""
    with tqdm.external_write_mode(file=sys.stdout):
        Console(highlight=False, soft_wrap=True).print(Text.assemble(("warning", "bold yellow"), f" {what}"))


def _figures(values: Mapping[str, Any]) -> str:
    return " | ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, (int, float)))
