"""Measure what a recipe costs compared with TRL's own script at the same settings and seed.

    python -m benchmarks.overhead.run --rounds 9 --output docs/benchmarks     # three hours on one core

Three programs train the same model on the same data: `python -m trl.scripts.sft` (or grpo); the recipe, with all its
callbacks; and the recipe with one of our schedules, so that the guard checks each step. All learning rates are constant
and equal. Losses and saved weights must be equal bit for bit; otherwise nothing is reported.

The programs run one after another on one core, in rounds of shuffled order. A bound is met or missed only if the whole
interval is on one side.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from benchmarks.common.intervals import Interval
from benchmarks.common.programs import BARE, RECIPE, WARM_UP, Observed, Program, run_in_rounds, training
from benchmarks.common.reporting import command_line, table
from benchmarks.common.task import TASK, RunFailed, make_sorting_task

ALL_ON = "recipe, everything on"
# The learning rate is constant and equal in all three.
SCHEDULES: dict[str, dict[str, Any]] = {
    BARE: {"lr_scheduler_type": "constant"},
    RECIPE: {"lr_scheduler_type": "constant"},
    ALL_ON: {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold"}},
}
BOUNDS = {RECIPE: 1.01, ALL_ON: 1.02}
MEASURES = {
    "step_cpu": ("a step, CPU time", "{:.3g} s"),
    "step_wall": ("a step, wall time", "{:.3g} s"),
    "process_cpu": ("whole process, CPU time", "{:.3g} s"),
    "process_wall": ("whole process, wall time", "{:.3g} s"),
    "peak_mib": ("peak memory", "{:.0f} MiB"),
}
SIZE: dict[str, int] = {"layers": 4, "width": 512, "batch": 8, "steps": 300}
"""So large that a training takes as long as the demo's SFT: the start of a process varies by more than we add."""


def programs(kind: str, folder: Path) -> dict[str, Program]:
    """Return the three programs, each with its own output folder, after making their data and model."""
    task = make_sorting_task(folder / "task", layers=SIZE["layers"], width=SIZE["width"], train=2000)
    arguments = {
        **TASK[kind],
        **({"num_generations": 8} if kind == "grpo" else {}),
        "model_name_or_path": str(task / "model"),
        "dataset_name": str(task / kind),
        "per_device_train_batch_size": SIZE["batch"],
        "max_steps": SIZE["steps"],
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
    if not any(observed[BARE].logged("grad_norm")):
        raise RunFailed("every gradient of TRL's script is 0, so equal losses would prove nothing")
    facts = {name: (one.logged("loss"), one.logged("grad_norm"), one.weights) for name, one in observed.items()}
    for name, found in facts.items():
        if found != facts[BARE]:
            raise RunFailed(f"{name!r} is a different training than TRL's script: losses, gradients or weights differ")


def figures(observed: Mapping[str, Observed]) -> dict[str, dict[str, float]]:
    """Return the figures of each program in a round, and the ratios to TRL's script.

    The ratio of a step is the median over steps, each compared with the same step of TRL's script.
    """
    bare = observed[BARE].steps[WARM_UP:]
    found: dict[str, dict[str, float]] = {}
    for name, one in observed.items():
        steps = one.steps[WARM_UP:]
        wall, cpu = np.median(steps, axis=0)
        wall_ratio, cpu_ratio = np.median(steps / bare, axis=0)
        found[name] = {
            "step_cpu": cpu,
            "step_wall": wall,
            "process_cpu": one.record["cpu"],
            "process_wall": one.wall,
            "peak_mib": one.record["peak_bytes"] / 2**20,
            "once_cpu": one.record["cpu"] - one.steps[:, 1].sum(),
            "step_cpu_ratio": cpu_ratio,
            "step_wall_ratio": wall_ratio,
        }
    reference = found[BARE]
    for row in found.values():
        row |= {f"{key}_ratio": row[key] / reference[key] for key in ("process_cpu", "process_wall", "peak_mib")}
        row["once_cpu_more"] = row["once_cpu"] - reference["once_cpu"]
    return found


def overhead_table(rounds: pd.DataFrame) -> list[str]:
    """Return a row for each training and measure, from the rows of overhead.csv."""
    rows: list[list[object]] = []
    for key, of_training in rounds.groupby("training", sort=False):
        values = of_training.drop(columns="training").pivot(index="round", columns="program")
        estimates = {column: Interval.of_median(values[column].tolist()) for column in values}
        for measure, (what, form) in MEASURES.items():
            ratios = {name: estimates[f"{measure}_ratio", name] for name in BOUNDS}
            cells = (f"{ratio}: {ratio.verdict(at_most=BOUNDS[name])}" for name, ratio in ratios.items())
            rows.append([key, what, form.format(estimates[measure, BARE].center), *cells])
        more = (f"{estimates['once_cpu_more', name]} s more" for name in BOUNDS)
        rows.append([key, "start and end, CPU time", f"{estimates['once_cpu', BARE].center:.3g} s", *more])
    return table(["training", "", BARE, *(f"{name}, at most {bound:g}" for name, bound in BOUNDS.items())], rows)


def main() -> None:
    """Measure, write overhead.csv, and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="at least 6 for a 95%% interval (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=("sft", "grpo"), default=["sft", "grpo"])
    parser.add_argument("--output", type=Path, required=True, help="a folder for overhead.csv")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    # The programs inherit this. Compiled bytecode is kept, as on a user's second run.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows: list[dict[str, Any]] = []
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
            trainings = programs(kind, Path(folder))
            for number, observed in enumerate(run_in_rounds(trainings, args.rounds, [ALL_ON]), 1):
                check_same_training(observed)
                for name, found in figures(observed).items():
                    rows.append({"training": f"{kind}-real", "round": number, "program": name, **found})
                print(f"{kind}: round {number} of {args.rounds}", file=sys.stderr, flush=True)
                pd.DataFrame(rows).to_csv(args.output / "overhead.csv", index=False, float_format="%.6g")
    print("\n".join(overhead_table(pd.DataFrame(rows))))


if __name__ == "__main__":
    main()
