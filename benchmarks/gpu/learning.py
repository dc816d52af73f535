"""Accuracy of a model on held-out problems before and after SFT and GRPO, under several schedules."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.programs import Program, run_alone
from benchmarks.common.recipe_runs import ROOT, RunFailed
from benchmarks.common.scripts import RECIPE, training

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "linear": {},
    "cosine_floor": {"floor_ratio": 0.1},
    "wsd": {"decay": "20%"},
}
_COMMON: dict[str, Any] = {
    "warmup_steps": 0.05,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 10,
    "seed": 42,
}
_OWN: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 2e-5, "per_device_train_batch_size": 32, "max_length": 512},
    "grpo": {
        "learning_rate": 2e-6,
        "per_device_train_batch_size": 64,
        "num_generations": 8,
        "max_completion_length": 256,
        "reward_funcs": ["accuracy", {"name": "answer_format", "format": "hashes", "weight": 0.2}],
    },
}
_ON_CPU: dict[str, Any] = {"use_cpu": True, "bf16": False}
_TINY: dict[str, dict[str, Any]] = {
    "sft": {"per_device_train_batch_size": 4},
    "grpo": {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8},
}
_MOST_TOKENS = {True: 8, False: 256}
"""Of an answer, if tiny and otherwise."""


@dataclass(frozen=True)
class Lesson:
    """What is learned, and how long."""

    model: Path
    gsm8k: Path
    device: str
    sft_steps: int
    grpo_steps: int
    problems: int
    """Held out, that are requested."""
    tiny: bool = False

    def program(self, kind: str, schedule: str, model: Path, folder: Path) -> Program:
        """A training of the recipe's."""
        arguments = {
            "model_name_or_path": str(model),
            "dataset_name": str(self.gsm8k),
            "max_steps": self.sft_steps if kind == "sft" else self.grpo_steps,
            "lr_scheduler_type": schedule,
            "lr_scheduler_kwargs": SCHEDULES[schedule],
            **_COMMON,
            **_OWN[kind],
            **(_ON_CPU if self.device == "cpu" else {"bf16": True}),
            **(_TINY[kind] if self.tiny else {}),
        }
        return training(RECIPE, kind, folder / f"{kind}-{schedule}", arguments)


def measure_learning(lesson: Lesson, schedule: str, folder: Path) -> list[dict[str, Any]]:
    """Of the model, of it after SFT, and of that after GRPO: right answers with their interval, and what changed.

    Each is compared with the one before, on the same problems (hf_sched.finetune.evaluation.evaluate).
    """
    models = [lesson.model]
    for kind in ("sft", "grpo"):
        program = lesson.program(kind, schedule, models[-1], folder)
        run_alone(program, environment={})
        models.append(program.folder)
    results = _evaluate(lesson, models, folder / "evaluation.json")
    wanted = ("right", "problems", "exact_match", "interval", "cut_off", "compared")
    return [{key: result.get(key) for key in wanted} for result in results]


def _evaluate(lesson: Lesson, models: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    # One output for all schedules: what the model answered before any training is requested once.
    flags = {
        "data": lesson.gsm8k,
        "metric": "accuracy",
        "max_problems": lesson.problems,
        "max_new_tokens": _MOST_TOKENS[lesson.tiny],
        "device": lesson.device,
        "output": output,
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "hf_sched.finetune.evaluation.evaluate", "--models", *map(str, models), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunFailed(f"the evaluation ended with {done.returncode}:\n{done.stderr[-1500:]}")
    found = json.loads(output.read_text(encoding="utf-8"))
    return [found[str(model)] for model in models]
