"""Run a training program as Python would, and record what it logs and how long each optimizer step takes.

    python -m benchmarks.common.observed --record FILE -- recipes/sft.py --config FILE
    python -m benchmarks.common.observed --record FILE -- -m trl.scripts.sft --config FILE

The program is unchanged: a callback that every Trainer gets by default reads the clocks.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from benchmarks.common.reporting import command_line


class Observer(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Reads the clocks at the beginning of each step and at the end of the training, and keeps logged numbers."""

    # On the class, because the program makes the trainer.
    marks: list[tuple[float, float]] = []  # noqa: RUF012
    """Seconds of wall time and of CPU time of this process."""
    logs: list[dict[str, float]] = []  # noqa: RUF012
    arguments: Any = None
    """The Trainer's arguments."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Observer.arguments = args
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), time.process_time()))

    on_train_end = on_step_begin

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        numbers = {key: float(value) for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        self.logs.append({"step": state.global_step, **numbers})


def run_observed(words: list[str]) -> dict[str, Any]:
    """Run a program to its end in this process, and return the record.

    A GPU's peak is that of this run. The other peak is that of the process.
    """
    Observer.marks.clear()
    Observer.logs.clear()
    if Observer not in DEFAULT_CALLBACKS:
        DEFAULT_CALLBACKS.append(Observer)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        with suppress_success():
            runpy.run_path(words[0], run_name="__main__")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "marks": [*Observer.marks],
        "logs": [*Observer.logs],
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "gpu_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


@contextmanager
def suppress_success() -> Iterator[None]:
    """Suppress a SystemExit with status 0, with which recipes end."""
    try:
        yield
    except SystemExit as end:
        if end.code:
            raise


def main() -> None:
    """Run the program and write the record."""
    parser = command_line(__doc__)
    parser.add_argument("--record", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("program", nargs="+", help="after `--`: a script or `-m module`, with its arguments")
    args = parser.parse_args()
    args.record.write_text(json.dumps(run_observed(args.program)), encoding="utf-8")


if __name__ == "__main__":
    main()
