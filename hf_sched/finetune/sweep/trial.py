"""One run of a sweep: its arguments, its process, and its result."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import psutil  # type: ignore[import-untyped]
import yaml

from hf_sched._run_files import read_trainer_state, write_json
from hf_sched.finetune.checkpoints.differences import is_harmless
from hf_sched.finetune.evaluation import EvaluationArguments
from hf_sched.finetune.sweep.grid import PEAK, SCHEDULE
from hf_sched.finetune.sweep.halving import Unit
from hf_sched.schedules.validation import ArgumentError

LOG = "log.txt"
_POLL = 0.2  # seconds
_DROPPED = ("config", "dry_run", "resume_from_checkpoint", "anneal_from", "anneal_duration", "anneal_shape")


class Process(Protocol):
    """The process of a run, the first of its process group."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""


Launch = Callable[[Path, Path], Process]
"""Starts the recipe with a configuration; its output goes to the second file."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. Without a value, it diverged or failed, and `error` says how."""

    value: float | None
    error: str = ""
    diverged: bool = False
    checkpoint: str = ""


@dataclass(frozen=True)
class Recipe:
    """The configuration whose peak is searched, and how its runs are started."""

    kind: str
    given: Mapping[str, Any]
    """The arguments as written in the file and on the command line."""
    metric: str
    higher: bool
    """Whether a higher metric is better."""
    total: int
    """The steps of a whole run."""
    warmup: int
    processes: int
    launch: Launch

    def arguments(self, unit: Unit) -> dict[str, Any]:
        """Return the arguments of a run, except for its folders and the checkpoint that it continues.

        Every run is a warmup, a hold and a cooldown. `{seed}` in a text becomes the seed.
        """
        dropped = {*_DROPPED, *(field.name for field in fields(EvaluationArguments))}
        kept = {name: value for name, value in self.given.items() if name not in dropped}
        warmup = f"warmup {self.warmup} | " if self.warmup else ""
        decay = unit.steps - unit.hold
        own = {
            PEAK: unit.point.peak,
            "seed": unit.seed,
            "max_steps": unit.steps,
            "warmup_steps": 0,
            **({"warmup_ratio": 0.0} if "warmup_ratio" in kept else {}),
            SCHEDULE[0]: "phases",
            SCHEDULE[1]: {"phases": f"{warmup}hold {unit.hold - self.warmup} | decay {decay} 1-sqrt"},
            "eval_strategy": "steps",
            "eval_steps": unit.steps,
            "load_best_model_at_end": False,
            "push_to_hub": False,
            "report_to": "none",
        }
        merged = {**kept, **dict(unit.point.others), **own}
        return {name: _for_seed(value, unit.seed) for name, value in merged.items()}

    def trunk_key(self, unit: Unit) -> str:
        """Identify what is trained, whatever the length; runs with the same key share their hold."""
        length = ("max_steps", "eval_steps", SCHEDULE[1])
        trained = {name: value for name, value in self.arguments(unit).items() if not is_harmless(name)}
        trained = {name: value for name, value in trained.items() if name not in length}
        what = [self.kind, self.processes, self.warmup, self.metric, trained]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def write_config(self, unit: Unit, folder: Path, checkpoint: str) -> Path:
        """Write the configuration of a run into its folder.

        The run continues the checkpoint, if there is one, and saves the end of its hold for a longer run.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        arguments = self.arguments(unit)
        arguments |= {"output_dir": str(folder), "save_strategy": "no"}
        if unit.steps < self.total:
            arguments |= {"save_strategy": "steps", "save_steps": unit.hold, "save_total_limit": None}
        if checkpoint:
            arguments["resume_from_checkpoint"] = checkpoint
            arguments[SCHEDULE[1]] = {**arguments[SCHEDULE[1]], "on_resume": "replace"}
            # The Trainer would save and evaluate as often as the shorter run did.
            state = Path(checkpoint, "trainer_state.json")
            write_json(state, {**read_trainer_state(state), "save_steps": unit.hold, "eval_steps": unit.steps})
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(arguments, sort_keys=False), encoding="utf-8")
        return config

    def outcome(self, unit: Unit, folder: Path, status: int) -> Outcome:
        """Read how a run ended, and delete its weights, except for the checkpoint of its hold.

        Raises:
            ArgumentError: The recipe rejected the arguments, or did not log the metric.
        """
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        hold = folder / f"checkpoint-{unit.hold}"
        _delete_weights(folder, kept=hold)
        if status == 2:
            raise ValueError(f"the recipe rejected the run in {folder}: {_error_in(log)}")
        if status:
            diverged = status == 1 and "Traceback" not in log
            return Outcome(None, "diverged" if diverged else f"exit status {status}: {_error_in(log)}", diverged)
        history = read_trainer_state(folder / "trainer_state.json")["log_history"]
        values = [logged[self.metric] for logged in history if self.metric in logged]
        if not values:
            logged = sorted({name for row in history for name in row if name.startswith("eval_")})
            raise ArgumentError("--metric", f"one of {', '.join(logged)}", self.metric)
        if not math.isfinite(values[-1]):
            return Outcome(None, "diverged", diverged=True)
        return Outcome(float(values[-1]), checkpoint=str(hold.resolve()) if hold.is_dir() else "")


def wait(process: Process, beat: Callable[[], None], every: float) -> int:
    """Wait for a run, and call `beat` every so many seconds; end all its processes if this one is interrupted."""
    last = time.monotonic()
    try:
        while (status := process.poll()) is None:
            time.sleep(_POLL)
            if time.monotonic() - last > every:
                beat()
                last = time.monotonic()
        return status
    except BaseException:
        end_processes(process.pid)
        raise


def end_processes(pid: int, created: float | None = None) -> None:
    """Kill the process group of a run; with `created`, only if its first process was started at this time."""
    try:
        if created is None or psutil.Process(pid).create_time() == created:
            os.killpg(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass


def _delete_weights(folder: Path, kept: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and path != kept:
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix in (".safetensors", ".bin"):
            path.unlink()


def _error_in(log: str) -> str:
    """The last line of a log that names an error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["no output"]
    return next((line for line in reversed(lines) if re.search(r"error\b", line, re.IGNORECASE)), lines[-1])


def _for_seed(value: Any, seed: int) -> Any:
    return value.replace("{seed}", str(seed)) if isinstance(value, str) else value
