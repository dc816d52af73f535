"""Sweeps whose runs are computed by a formula instead of trained, through a real Optuna storage."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_sched.finetune.sweep.grid import Point
from hf_sched.finetune.sweep.halving import Rung, Unit, plan_rungs
from hf_sched.finetune.sweep.trial import Outcome, Recipe
from hf_sched.finetune.sweep.worker import Worker, open_storage

TOTAL = 100
PEAKS = tuple(1e-4 * 2**power for power in range(8))


def loss(unit: Unit, best: float = 8e-4) -> float:
    """A parabola in the logarithm of the peak, lower for longer runs, and shifted by the seed."""
    noise = random.Random(f"{unit.point.peak:g} {unit.seed}").gauss(0, 0.01)
    return 1 + 0.1 * math.log2(unit.point.peak / best) ** 2 + 20 / unit.steps + unit.seed % 7 / 10 + noise


@dataclass
class Formula:
    """Stands in for the training of a run, and records the runs."""

    value: Callable[[Unit], float] = loss
    seconds: float = 0.0
    stop_after: int | None = None
    """Raise a KeyboardInterrupt instead of the run after so many."""
    units: list[Unit] = field(default_factory=list)

    def __call__(self, worker: Worker, trial: Any, unit: Unit, checkpoint: str) -> Outcome:
        if self.stop_after is not None and len(self.units) >= self.stop_after:
            raise KeyboardInterrupt
        self.units.append(unit)
        time.sleep(self.seconds)
        value = self.value(unit)
        if math.isnan(value):
            return Outcome(None, "diverged", diverged=True)
        kept = worker.folder / f"trial-{trial.number}"  # stands in for the checkpoint of the hold
        kept.mkdir(parents=True)
        return Outcome(value, checkpoint=str(kept))


def recipe(**changes: Any) -> Recipe:
    """A recipe that is never started."""
    given = {"model_name_or_path": "model", "dataset_name": "data", "learning_rate": 1e-3}
    usual: dict[str, Any] = {"kind": "sft", "given": given, "metric": "eval_loss", "higher": False, "total": TOTAL}
    return Recipe(**{**usual, "warmup": 0, "processes": 1, "launch": None, **changes})


def worker(
    storage: Path,
    train: Any,
    peaks: Sequence[float] = PEAKS,
    seeds: Sequence[int] = (0, 1, 2),
    budget: float = 0.35,
    rungs: Sequence[Rung] | None = None,
    **others: Any,
) -> Worker:
    """A worker of a sweep over these peaks."""
    points = [Point(peak) for peak in peaks]
    rungs = rungs or plan_rungs(len(points), seeds, TOTAL, budget)
    shared = {"points": points, "rungs": rungs, "folder": storage.with_suffix(""), "train": train, "beat_every": 0.05}
    return Worker.join(open_storage(str(storage)), recipe(), **{**shared, **others})
