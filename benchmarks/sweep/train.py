"""The runs of all sweeps of the benchmark, trained once, through the storage that `hf-sched sweep` uses.

A training is the same whenever its task, peak, seed and length are, so the sweeps over seed sets can share them.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import yaml

from benchmarks.common.task import ROOT
from benchmarks.learning.run import CONFIGS, make_sorting_task
from benchmarks.learning.text_task import make_text_task
from benchmarks.learning.trials import PRELOAD, run_recipe
from hf_sched.finetune.sweep.grid import Point
from hf_sched.finetune.sweep.halving import Rung
from hf_sched.finetune.sweep.trial import Recipe
from hf_sched.finetune.sweep.worker import Worker, open_storage

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Task:
    """A task of the learning benchmark (docs/benchmarks.md), with its grid of peaks."""

    name: str
    config: str
    model: str
    data: str
    peaks: tuple[float, ...]

    @property
    def given(self) -> dict[str, Any]:
        """The arguments of its configuration."""
        return dict(yaml.safe_load((CONFIGS / f"{self.config}.yaml").read_text(encoding="utf-8")))

    @property
    def kind(self) -> str:
        """The recipe."""
        return "grpo" if self.config == "grpo" else "sft"

    @property
    def metric(self) -> str:
        """What is compared."""
        return "eval_reward" if self.kind == "grpo" else "eval_loss"

    @property
    def higher(self) -> bool:
        """Whether a higher metric is better."""
        return self.kind == "grpo"

    @property
    def total(self) -> int:
        """The steps of a whole run."""
        return int(self.given["max_steps"])

    @property
    def points(self) -> list[Point]:
        """The peaks as points of a sweep."""
        return [Point(peak) for peak in self.peaks]


TASKS = (
    Task("sft", "sft", "task-{seed}/model", "task-{seed}/sft", (1e-3, 2e-3, 4e-3)),
    Task("pretraining", "text", "text/model-{seed}", "text/data", (2e-3, 4.5e-3, 1e-2)),
    Task("grpo", "grpo", "sft-{seed}", "task-{seed}/grpo", (5e-5, 1e-4, 2e-4, 4e-4)),
)
PARTS = (2, 1)
"""Lengths of the runs: a half of the whole, all."""


def train_all(gsm8k: Path, folder: Path) -> pd.DataFrame:
    """Train what is missing, and return a row for each run; several processes may do this at the same time."""
    make_text_task(gsm8k, folder / "text", SEEDS)
    for seed in SEEDS:
        make_sorting_task(folder, seed)
    storage = open_storage(str(folder / "sweep.journal"))
    for number in range(1, len(PARTS) + 1):
        rows: list[dict[str, Any]] = []
        for task in TASKS:
            rungs = [Rung(task.total // part, len(task.peaks), SEEDS) for part in PARTS[:number]]
            more = {"points": task.points, "rungs": rungs, "folder": (folder / f"{task.name}-{os.getpid()}").resolve()}
            rows += _rows(task, Worker.join(storage, _recipe(task, folder), **more).run())
    return pd.DataFrame(rows)


def _rows(task: Task, results: Any) -> Iterator[dict[str, Any]]:
    for unit, value in results.items():
        yield {
            "task": task.name,
            "learning_rate": unit.point.peak,
            "seed": unit.seed,
            "steps": unit.steps,
            "value": value,
        }


def _recipe(task: Task, folder: Path) -> Recipe:
    places = {"model_name_or_path": str(folder / task.model), "dataset_name": str(folder / task.data)}
    given = {**task.given, **places}
    return Recipe(
        kind=task.kind,
        given=given,
        metric=task.metric,
        higher=task.higher,
        total=task.total,
        warmup=int(given["warmup_steps"]),
        processes=1,
        launch=functools.partial(_fork, task.kind),
    )


class _Forked:
    """A fork of a process that has imported everything, which starts at once."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._process = context.Process(target=_in_own_group, args=(list(words), log))
        self._process.start()
        self.pid = int(self._process.pid or 0)

    def poll(self) -> int | None:
        return self._process.exitcode


def _fork(kind: str, config: Path, log: Path) -> _Forked:
    return _Forked([str(ROOT / "recipes" / f"{kind}.py"), "--config", str(config)], log)


def _in_own_group(words: list[str], log: Path) -> None:
    os.setsid()
    run_recipe(words, log)
