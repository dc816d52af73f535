"""Short CPU trainings of the recipes on the sorting task, in processes that can be killed and read afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import yaml

from benchmarks.common.task import ROOT, TASK, RunFailed, child_environment, make_sorting_task

STEPS, SAVE_STEPS = 16, 2
SEQUENCES = 16
"""Sequences per optimizer step, on any number of processes."""
ACCUMULATION = 2
PEAK = {"sft": 2e-3, "grpo": 2e-3}
SCHEDULE: dict[str, Any] = {"floor_ratio": 0.1}
WARMUP_STEPS = 2
TIMEOUT = 300.0  # seconds


@dataclass(frozen=True)
class Launch:
    """How the processes of a training are started: the name of the strategy, and the Accelerate configuration."""

    name: str
    processes: int
    config: str | None = None
    script: tuple[str, ...] = ()

    def words(self, *more: str) -> list[str]:
        """Return the command up to the recipe's script."""
        if self.config is None:
            return [sys.executable, *self.script]
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", self.config]
        # DeepSpeed names its shared memory after the port, so port 0 would not be unique.
        where = more or ("--main_process_port", str(free_port()))
        return [*launch, "--num_processes", str(self.processes), *where, *self.script]


_LAUNCHERS = "tests/helpers/launchers"
LAUNCHES = {
    "1": Launch("one process", 1),
    "2": Launch("DDP", 2, "accelerate_configs/cpu_2proc.yaml"),
    "4": Launch("DDP", 4, "accelerate_configs/cpu_2proc.yaml"),
    "zero2": Launch("ZeRO-2", 2, f"{_LAUNCHERS}/zero2_cpu_2proc.yaml"),
    "zero3": Launch("ZeRO-3", 2, f"{_LAUNCHERS}/zero3_cpu_2proc.yaml"),
    "fsdp2": Launch("FSDP2", 2, f"{_LAUNCHERS}/fsdp2_cpu_2proc.yaml", (f"{_LAUNCHERS}/fsdp2_on_cpu.py",)),
}


class Run:
    """A training in its own processes; its output goes to a log file next to its folder."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder.parent / f"{folder.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._start = log.tell()
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**child_environment(), **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What the run has printed so far."""
        return self.log.read_bytes()[self._start :].decode(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the first process is still running."""
        return self._process.poll() is None

    def wait_for(self, condition: Callable[[], bool], timeout: float = TIMEOUT) -> bool:
        """Wait until a condition holds; return False if the training ends before.

        Raises:
            RunFailed: The timeout, in seconds, is over; the training has been killed.
        """
        end = time.monotonic() + timeout
        while not condition():
            if not self.running:
                return condition()
            if time.monotonic() > end:
                self.kill(self.processes())
                raise RunFailed(f"still running after {timeout:g} s: {self._last_error()}")
            time.sleep(0.001)
        return True

    def has_stepped(self, times: int = 1) -> bool:
        """Whether this many optimizer steps have been made; printed progress is not a reliable sign."""
        steps = self.folder / "learning_rates.jsonl"
        return steps.is_file() and steps.read_text(encoding="utf-8").count('"rates"') >= times

    def processes(self) -> list[int]:
        """Return all process ids; a launcher's workers have their own sessions, so killpg does not reach them."""
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [*(child.pid for child in children), self._process.pid]

    def kill(self, processes: Sequence[int]) -> bool:
        """Send SIGKILL to all processes; return False if the training had already ended."""
        alive = self.running
        for pid in processes if alive else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                alive = False
        self._process.wait()
        return alive

    def finish(self) -> Run:
        """Wait for the end.

        Raises:
            RunFailed: The exit status is not 0.
        """
        self.wait_for(lambda: not self.running)
        if self._process.returncode:
            raise RunFailed(self._last_error())
        return self

    def logged(self, key: str) -> list[float]:
        """Return the values of a logged quantity, one per optimizer step."""
        file = self.folder / "trainer_state.json"
        # Hosts other than the first have the Trainer's state only in checkpoints.
        file = file if file.is_file() else self.folder / f"checkpoint-{STEPS}" / "trainer_state.json"
        state = json.loads(file.read_text(encoding="utf-8"))
        return [row[key] for row in state["log_history"] if key in row]

    def _last_error(self) -> str:
        errors = [line for line in self.output.splitlines() if "Error" in line or "error:" in line]
        return (errors or self.output.splitlines() or ["no output"])[-1].strip()


class Workshop:
    """A folder with the sorting task and a tiny model, in which trainings run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._whole: dict[tuple[str, str], Run] = {}
        make_sorting_task(folder / "task", layers=2, width=32, train=400, backwards_share=0.0)

    def start(
        self,
        recipe: str,
        launch: Launch,
        folder: Path,
        *,
        launch_words: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **arguments: Any,
    ) -> Run:
        """Start a recipe with these arguments, written to a YAML file next to the output folder."""
        config = folder.parent / f"{folder.name}.yaml"
        config.parent.mkdir(parents=True, exist_ok=True)
        defaults = {
            "model_name_or_path": str(self.folder / "task" / "model"),
            "dataset_name": str(self.folder / "task" / recipe),
            "output_dir": str(folder),
            "learning_rate": PEAK[recipe],
            "per_device_train_batch_size": SEQUENCES // (ACCUMULATION * launch.processes),
            "gradient_accumulation_steps": ACCUMULATION,
            "max_steps": STEPS,
            "save_strategy": "steps",
            "save_steps": SAVE_STEPS,
            "resume_from_checkpoint": "auto",
            "warmup_steps": WARMUP_STEPS,
            "lr_scheduler_type": "cosine_floor",
            "lr_scheduler_kwargs": SCHEDULE,
        }
        config.write_text(yaml.safe_dump({**TASK[recipe], **defaults, **arguments}), encoding="utf-8")
        command = [*prefix, *launch.words(*launch_words), f"recipes/{recipe}.py", "--config", str(config)]
        fixed = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONUNBUFFERED": "1"}
        return Run(command, folder, {**fixed, **(environment or {})})

    def whole(self, recipe: str, where: str) -> Run:
        """Return an uninterrupted training, made once for all comparisons."""
        if (recipe, where) not in self._whole:
            run = self.start(recipe, LAUNCHES[where], self.place(recipe, where, 0))
            self._whole[recipe, where] = run.finish()
        return self._whole[recipe, where]

    def place(self, recipe: str, where: str, number: int) -> Path:
        """Return an output folder; all have equally long names, so files that contain the name have equal sizes."""
        return self.folder / f"{recipe}-{where}-{number:03d}" / "run"


def random_moment(rng: random.Random, whole: Run) -> float:
    """Draw a time after the first optimizer step, in seconds, uniform until the end of a training like this one."""
    first_save = (whole.folder / f"checkpoint-{SAVE_STEPS}" / "trainer_state.json").stat().st_mtime
    end = (whole.folder / "trainer_state.json").stat().st_mtime
    # STEPS - SAVE_STEPS steps lie between the first save and the end; one more step lies before.
    return rng.uniform(0, (end - first_save) * (STEPS - 1) / (STEPS - SAVE_STEPS))


def free_port() -> int:
    """Return a free TCP port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
