"""Real trainings of the recipes on the embedded task, each a matter of seconds: started, killed, read afterwards."""

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

ROOT = Path(__file__).parents[2]
STEPS, SAVE_STEPS = 16, 2
SEQUENCES = 16  # of an optimizer step, however many processes share them
ACCUMULATION = 2
PEAK = {"sft": 2e-3, "grpo": 2e-3}
SCHEDULE: dict[str, Any] = {"floor_ratio": 0.1}
WARMUP_STEPS = 2
PATIENCE = 300  # seconds

COMMON: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "seed": 0,
    "report_to": "none",
    "logging_steps": 1,
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": SAVE_STEPS,
    "gradient_accumulation_steps": ACCUMULATION,
    "warmup_steps": WARMUP_STEPS,
    "lr_scheduler_type": "cosine_floor",
    "lr_scheduler_kwargs": SCHEDULE,
}
OWN: dict[str, dict[str, Any]] = {
    "sft": {"max_length": 64},
    # An untrained model gives no right answer: under `exact_answer` all losses would be 0, and agree for that reason.
    "grpo": {
        "num_generations": 4,
        "max_completion_length": 10,
        "reward_funcs": ["benchmarks.common.recipe_runs.share_of_digits"],
    },
}


def share_of_digits(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that differs between the completions of an untrained model."""
    texts = [completion[-1]["content"] or "" for completion in completions]
    return [sum(map(str.isdigit, text)) / max(len(text), 1) for text in texts]


@dataclass(frozen=True)
class Launch:
    """How the processes of a training are started."""

    name: str
    processes: int
    config: str | None = None
    script: tuple[str, ...] = ()

    def words(self, *more: str) -> list[str]:
        """The command up to the recipe's script."""
        if self.config is None:
            return [sys.executable, *self.script]
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", self.config]
        # DeepSpeed names its shared memory after the port: 0, for any free one, would not do.
        where = more or ("--main_process_port", str(free_port()))
        return [*launch, "--num_processes", str(self.processes), *where, *self.script]


DDP = "accelerate_configs/cpu_2proc.yaml"
LAUNCHES = {
    "1": Launch("one process", 1),
    "2": Launch("DDP", 2, DDP),
    "4": Launch("DDP", 4, DDP),
    "zero2": Launch("ZeRO-2", 2, "tests/helpers/launchers/zero2_cpu_2proc.yaml"),
    "zero3": Launch("ZeRO-3", 2, "tests/helpers/launchers/zero3_cpu_2proc.yaml"),
    "fsdp2": Launch(
        "FSDP2", 2, "tests/helpers/launchers/fsdp2_cpu_2proc.yaml", ("tests/helpers/launchers/fsdp2_on_cpu.py",)
    ),
}


class RunFailed(RuntimeError):
    """A training ended with an error."""


class Run:
    """A training in processes of its own."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.log = folder.parent / f"{folder.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._begins = log.tell()
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    @property
    def running(self) -> bool:
        """Whether its first process is still there."""
        return self._process.poll() is None

    def wait_for(self, condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
        """Wait until something is so, at most so many seconds; False if the training ended before."""
        end = time.monotonic() + patience
        while not condition():
            if not self.running:
                return condition()
            if time.monotonic() > end:
                self.kill(self.processes())
                raise RunFailed(f"still running after {patience} s: {self._last_words()}")
            time.sleep(0.001)
        return True

    def has_stepped(self, times: int = 1) -> bool:
        """Whether so many optimizer steps have been made: what is printed of them is no sure sign."""
        steps = self.folder / "learning_rates.jsonl"
        return steps.is_file() and steps.read_text(encoding="utf-8").count('"rates"') >= times

    def processes(self) -> list[int]:
        """The ids of all its processes: a launcher's workers are in sessions of their own, out of killpg's reach."""
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [*(child.pid for child in children), self._process.pid]

    def kill(self, processes: Sequence[int]) -> bool:
        """SIGKILL them at once; False if the training had ended before."""
        alive = self.running
        for pid in processes if alive else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                alive = False
        self._process.wait()
        return alive

    def finish(self) -> Run:
        """Wait for its end, which must be a success."""
        self.wait_for(lambda: not self.running)
        if self._process.returncode:
            raise RunFailed(self._last_words())
        return self

    def logged(self, key: str) -> list[float]:
        """What each optimizer step logged, in order."""
        file = self.folder / "trainer_state.json"
        # On a host that is not the first, the Trainer saves its state in checkpoints alone.
        file = file if file.is_file() else self.folder / f"checkpoint-{STEPS}" / "trainer_state.json"
        state = json.loads(file.read_text(encoding="utf-8"))
        return [row[key] for row in state["log_history"] if key in row]

    def _last_words(self) -> str:
        errors = [line for line in self.output.splitlines() if "Error" in line or "error:" in line]
        return (errors or self.output.splitlines() or ["it printed nothing"])[-1].strip()


class Workshop:
    """A folder with the task, in which trainings run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._whole: dict[tuple[str, str], Run] = {}
        make = [
            sys.executable,
            "-m",
            "hf_sched.finetune.demo.sorting_task",
            "--output_dir",
            str(folder / "task"),
            "--layers",
            "2",
        ]
        sizes = ["--width", "32", "--train", "400", "--test", "20", "--backwards_share", "0"]
        subprocess.run([*make, *sizes], cwd=ROOT, check=True, capture_output=True)

    def start(
        self,
        recipe: str,
        launch: Launch,
        folder: Path,
        *,
        launch_words: Sequence[str] = (),
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **given: Any,
    ) -> Run:
        """Start a recipe with a YAML file of these arguments beside its output."""
        arguments = {
            "model_name_or_path": str(self.folder / "task" / "model"),
            "dataset_name": str(self.folder / "task" / recipe),
            "output_dir": str(folder),
            "learning_rate": PEAK[recipe],
            "per_device_train_batch_size": SEQUENCES // (ACCUMULATION * launch.processes),
            "resume_from_checkpoint": "auto",
            **COMMON,
            **OWN[recipe],
            **given,
        }
        folder.parent.mkdir(parents=True, exist_ok=True)
        config = folder.parent / f"{folder.name}.yaml"
        config.write_text(yaml.safe_dump(arguments), encoding="utf-8")
        command = [*prefix, *launch.words(*launch_words), f"recipes/{recipe}.py", "--config", str(config)]
        fixed = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        offline = {"HF_HUB_OFFLINE": "1", "CI": "1", "TOKENIZERS_PARALLELISM": "false"}
        return Run(command, folder, {**fixed, **offline, **(environment or {})})

    def whole(self, recipe: str, where: str) -> Run:
        """A training that nothing interrupts; one for all cases that compare with it."""
        if (recipe, where) not in self._whole:
            run = self.start(recipe, LAUNCHES[where], self.place(recipe, where, 0))
            self._whole[recipe, where] = run.finish()
        return self._whole[recipe, where]

    def place(self, recipe: str, where: str, number: int) -> Path:
        """The output folder of a trial; equally long for all, so that files which name it are equally long, too."""
        return self.folder / f"{recipe}-{where}-{number:03d}" / "run"


def random_moment(rng: random.Random, whole: Run) -> float:
    """Seconds after the first optimizer step, uniform up to the end of a training like this one."""
    first_save = (whole.folder / f"checkpoint-{SAVE_STEPS}" / "trainer_state.json").stat().st_mtime
    end = (whole.folder / "trainer_state.json").stat().st_mtime
    # From the first save to the end are STEPS - SAVE_STEPS steps; one step more lies before.
    return rng.uniform(0, (end - first_save) * (STEPS - 1) / (STEPS - SAVE_STEPS))


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
