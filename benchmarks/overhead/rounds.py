"""The trainings that are compared, and the figures of one round of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.programs import BARE, RECIPE, WARM_UP, Observed, Program, run_alone, run_in_turns, training
from benchmarks.common.task import TASK, RunFailed, make_sorting_task

ALL_ON = "recipe, everything on"
# The learning rate is constant and equal in all three.
SCHEDULES: dict[str, dict[str, Any]] = {
    BARE: {"lr_scheduler_type": "constant"},
    RECIPE: {"lr_scheduler_type": "constant"},
    ALL_ON: {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold"}},
}


@dataclass(frozen=True)
class Workload:
    """A training that is measured, by the size of its model."""

    kind: str
    layers: int = 4
    width: int = 512
    batch: int = 8
    steps: int = 300


# They take as long as the demo's SFT, because the start of a process varies by more than the recipes add.
WORKLOADS = {f"{kind}-real": Workload(kind) for kind in ("sft", "grpo")}


def programs(workload: Workload, folder: Path) -> dict[str, Program]:
    """Return the three programs, each with its own output folder, after making their data and model."""
    kind = workload.kind
    task = make_sorting_task(folder / "task", layers=workload.layers, width=workload.width, train=2000)
    arguments = {
        **TASK[kind],
        **({"num_generations": 8} if kind == "grpo" else {}),
        "model_name_or_path": str(task / "model"),
        "dataset_name": str(task / kind),
        "per_device_train_batch_size": workload.batch,
        "max_steps": workload.steps,
        "learning_rate": 1e-4,
        "save_strategy": "no",
    }
    return {
        name: training(BARE if name == BARE else RECIPE, kind, folder / name.replace(" ", "_"), arguments | schedule)
        for name, schedule in SCHEDULES.items()
    }


def check_same_training(observed: Mapping[str, Observed]) -> None:
    """Check that all programs were the same training, bit for bit.

    Raises:
        RunFailed: Losses, gradient norms or saved weights differ from those of TRL's script.
    """
    bare = observed[BARE]
    if not any(bare.logged("grad_norm")):
        raise RunFailed("every gradient of TRL's script is 0, so equal losses would prove nothing")
    for name, other in observed.items():
        for key in ("loss", "grad_norm"):
            if other.logged(key) != bare.logged(key):
                raise RunFailed(f"{name!r} is a different training than TRL's script: `{key}` differs")
        if other.weights != bare.weights:
            raise RunFailed(f"{name!r} is a different training than TRL's script: the saved weights differ")


def figures(observed: Mapping[str, Observed]) -> dict[str, dict[str, float]]:
    """Return the figures of each program in a round, and the ratios to TRL's script.

    The ratio of a step is the median over steps, each compared with the same step of TRL's script.
    """
    bare = observed[BARE]
    found: dict[str, dict[str, float]] = {}
    for name, one in observed.items():
        steps = one.steps[WARM_UP:]
        pairs = list(zip(steps, bare.steps[WARM_UP:], strict=True))
        found[name] = {
            "step_cpu": median(step.cpu for step in steps),
            "step_wall": median(step.wall for step in steps),
            "callbacks_cpu": median(step.callbacks for step in steps),
            "process_cpu": one.cpu,
            "process_wall": one.wall,
            "peak_mib": one.peak_bytes / 2**20,
            "once_cpu": one.cpu - sum(step.cpu for step in one.steps),
            "step_cpu_ratio": median(ours.cpu / theirs.cpu for ours, theirs in pairs),
            "step_wall_ratio": median(ours.wall / theirs.wall for ours, theirs in pairs),
            "callbacks_cpu_ratio": 1
            + median((ours.callbacks - theirs.callbacks) / theirs.cpu for ours, theirs in pairs),
        }
    reference = found[BARE]
    for row in found.values():
        row |= {f"{key}_ratio": row[key] / reference[key] for key in ("process_cpu", "process_wall", "peak_mib")}
        row["once_cpu_more"] = row["once_cpu"] - reference["once_cpu"]
    return found


def measure(trainings: Mapping[str, Program], rounds: int) -> Iterator[dict[str, dict[str, float]]]:
    """Yield the figures of each round; one program runs before the first round, to fill the caches.

    Raises:
        RunFailed: A program failed, or the programs are different trainings.
    """
    order = random.Random(0)
    run_alone(trainings[ALL_ON])
    for _ in range(rounds):
        observed = run_in_turns(trainings, order)
        check_same_training(observed)
        yield figures(observed)
