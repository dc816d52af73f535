"""Run a training program as Python would, and record what it logs and how long each optimizer step takes.

    python -m benchmarks.common.observed --record FILE -- recipes/sft.py --config FILE
    python -m benchmarks.common.observed --record FILE -- -m trl.scripts.sft --config FILE

The program is unchanged: a callback that every Trainer gets by default reads the clocks. With `--turns`, the file
descriptor of a socket, the program waits before each step, so that several trainings can take turns on one core.
"""

from __future__ import annotations

import json
import runpy
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS
from transformers.trainer_callback import CallbackHandler

from benchmarks.common.reporting import command_line

Clocks = tuple[float, float, float]
"""Seconds: wall time, CPU time of this process, CPU time spent in callbacks."""


class Observer(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Reads the clocks at each mark (the beginning of a step, the end of the training) and keeps logged numbers."""

    # On the class, because the program may make several trainers.
    turns: socket.socket | None = None
    marks: list[tuple[Clocks, Clocks]] = []  # noqa: RUF012
    """When each mark was reached, and when the program went on from there."""
    logs: list[dict[str, float]] = []  # noqa: RUF012
    in_callbacks = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        self.logs.append({"step": state.global_step, **numbers})

    def _mark(self) -> None:
        reached = _clocks()
        if self.turns is not None:
            self.turns.send(b".")
            if not self.turns.recv(1):
                raise SystemExit("the measuring process has ended")
        self.marks.append((reached, _clocks()))


def _clocks() -> Clocks:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time(), Observer.in_callbacks


def _time_callbacks() -> None:
    call_event = CallbackHandler.call_event

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return call_event(*args, **kwargs)
        finally:
            Observer.in_callbacks += time.process_time() - start

    CallbackHandler.call_event = timed


def _run(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """Run the program and write the record, even if it fails."""
    parser = command_line(__doc__)
    parser.add_argument("--record", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--turns", type=int, help="the file descriptor of a socket")
    parser.add_argument("program", nargs="+", help="after `--`: a script or `-m module`, with its arguments")
    args = parser.parse_args()
    if args.turns is not None:
        Observer.turns = socket.socket(fileno=args.turns)
    DEFAULT_CALLBACKS.append(Observer)
    _time_callbacks()
    try:
        _run(args.program)
    finally:
        gpu_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        record = {"marks": Observer.marks, "logs": Observer.logs, "gpu_bytes": gpu_bytes}
        args.record.write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
