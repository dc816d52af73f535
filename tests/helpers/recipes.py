"""Runs recipes on the embedded task: in this process, or by the real launcher on several processes."""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from tests.helpers.recipe_runs import free_port

ROOT = Path(__file__).parents[2]
ONE_PROCESS = [sys.executable]
TWO_PROCESSES = ["accelerate_configs/cpu_2proc.yaml"]
FSDP2 = ["tests/helpers/launchers/fsdp2_cpu_2proc.yaml", "tests/helpers/launchers/fsdp2_on_cpu.py"]
ZERO2 = ["tests/helpers/launchers/zero2_cpu_2proc.yaml"]
ZERO3 = ["tests/helpers/launchers/zero3_cpu_2proc.yaml"]
needs_compiler = pytest.mark.skipif(not shutil.which("c++"), reason="DeepSpeed compiles an operator when first used")

SFT = {"learning_rate": 2e-3, "per_device_train_batch_size": 8, "max_length": 64}
GRPO = {
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 10,
    "reward_funcs": ["exact_answer"],
}
DPO = {"learning_rate": 5e-4, "per_device_train_batch_size": 8, "max_length": 64}
# An untrained model gives no right answer: under `exact_answer` all rewards and losses would be 0, and thus equal.
CAN_BE_EARNED = {"reward_funcs": ["benchmarks.common.task.share_of_digits"]}
BASE = {"sft": SFT, "grpo": GRPO, "dpo": DPO}
COMMON = {"use_cpu": True, "bf16": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "seed": 0}


@dataclass(frozen=True)
class Finished:
    """A finished recipe."""

    folder: Path
    returncode: int
    output: str

    @property
    def args(self) -> Any:
        return torch.load(self.folder / "training_args.bin", weights_only=False)

    def logged(self, key: str) -> list[float]:
        """The values that the optimizer steps logged, in order."""
        state = json.loads((self.folder / "trainer_state.json").read_text())
        return [row[key] for row in state["log_history"] if key in row]


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small instance of the embedded task."""
    from hf_sched.finetune.demo.sorting_task import save_data, save_model

    folder = tmp_path_factory.mktemp("task")
    save_model(folder / "model", layers=2, width=32, seed=0)
    save_data(folder, train=400, test=20, backwards_share=0.0, seed=0)
    return folder


@pytest.fixture
def run_recipe(task: Path, tmp_path: Path) -> Any:
    """Run a recipe with a YAML file of these arguments: in this process, or under a launcher."""

    def run(
        recipe: str, launcher: list[str] = ONE_PROCESS, *, name: str = "run", ok: bool = True, **given: Any
    ) -> Finished:
        folder = Path(given.pop("output_dir", tmp_path / name))
        arguments = {
            "model_name_or_path": str(task / "model"),
            "dataset_name": str(task / recipe),
            "output_dir": str(folder),
            **COMMON,
            **BASE[recipe],
            **given,
        }
        config = tmp_path / f"{name}.yaml"
        config.write_text(yaml.safe_dump({key: value for key, value in arguments.items() if value is not None}))
        if launcher != ONE_PROCESS:
            return finish(launcher, [f"recipes/{recipe}.py", "--config", str(config)], folder, ok=ok)
        status, output = run_main(recipe, "--config", str(config))
        assert (status == 0) == ok, output[-6000:]
        return Finished(folder, status, output)

    return run


def run_main(recipe: str, *args: str) -> tuple[int, str]:
    """Run a recipe in this process; return its exit status and what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            status = importlib.import_module(f"hf_sched.finetune.{recipe}").main(args)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except Exception:
            traceback.print_exc()
            status = 1
    return status, printed.getvalue()


def finish(launcher: list[str], command: list[str], folder: Path, *, ok: bool = True, seconds: int = 300) -> Finished:
    """Run a command to its end under a launcher; `ok` says whether it should succeed."""
    if launcher != ONE_PROCESS:
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
        # Its own port, so that other runs on this machine do not interfere (DeepSpeed names its shared memory after the
        # port, so 0 for any free one does not work).
        launcher = [*launch, launcher[0], "--main_process_port", str(free_port()), *launcher[1:]]
    # The scripts of tests/helpers/launchers import from `tests`, which is not installed.
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*launcher, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output = "".join(process.communicate(timeout=seconds))
        except subprocess.TimeoutExpired:
            # A launcher that is killed leaves its workers running.
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
            raise
    assert (process.returncode == 0) == ok, output[-6000:]
    return Finished(folder, process.returncode, output)
