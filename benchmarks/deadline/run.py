"""Measure how close runs with a `time_budget` end to their deadline, and whether they end on their floor.

    python -m benchmarks.deadline.run --output docs/benchmarks     # about 10 minutes on two cores

First 200 simulated runs, 25 of each kind of step times: `hf_sched.LiveControl` and a real scheduler, with a clock that
the simulation sets. Then 10 real trainings of the recipes on a tiny model: SFT and GRPO on one and two processes, four
of them beside two programs that use the processors from the middle of the budget on. A run has ended when its last file
is written.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import yaml

from benchmarks.common.reporting import command_line, table
from benchmarks.common.task import ROOT, TASK, RunFailed, child_environment, make_sorting_task
from benchmarks.deadline.traces import KINDS, simulate
from hf_sched._run_files import COOLDOWN_STATUS
from hf_sched.audit import audit

FLOOR, PEAK = 0.1, 2e-4
ENDLESS: dict[str, Any] = {
    **{"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold", "floor_ratio": FLOOR}},
    **{"max_steps": 1_000_000, "warmup_steps": 10, "logging_steps": 10, "learning_rate": PEAK},
    **{"per_device_train_batch_size": 8, "save_strategy": "steps", "save_steps": 100, "save_total_limit": 2},
}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 100}
# Processes, seconds of the budget, whether other programs run from its middle on.
_WAYS = ((1, 20, False), (1, 40, True), (1, 60, False), (2, 40, False), (2, 60, True))
RUNS = [(recipe, *way) for recipe in ("sft", "grpo") for way in _WAYS]


def main() -> int:
    """Run all and print the tables; with `--output` write the raw data into that folder."""
    parser = command_line(__doc__)
    parser.add_argument("--traces", type=int, default=25, help="simulated runs of each kind")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many of the real runs")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    logging.getLogger("hf_sched").setLevel(logging.ERROR)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.traces:
            ended = (simulate(kind, seed, Path(folder)) for kind in KINDS for seed in range(args.traces))
            found["traces"] = pd.DataFrame(map(vars, ended))
            print("\n".join(traces_table(found["traces"])))
        if args.runs:
            task = make_sorting_task(Path(folder, "task"), layers=2, width=64, train=2000)
            trained = (train(Path(folder, f"run{number}"), task, *RUNS[number]) for number in range(args.runs))
            found["runs"] = pd.DataFrame(trained)
            print("\n".join(["", *runs_table(found["runs"])]))
    for name, rows in found.items() if args.output else ():
        rows.to_csv(args.output / f"deadline_{name}.csv", index=False)
    return int(not all(rows["is_on_floor"].all() for rows in found.values()))


def train(folder: Path, task: Path, recipe: str, processes: int, budget: int, is_loaded: bool) -> dict[str, Any]:
    """Train a recipe with a budget in seconds; return how it ended.

    Raises:
        RunFailed: It ended with an error.
    """
    data = {"model_name_or_path": str(task / "model"), "dataset_name": str(task / recipe), "output_dir": str(folder)}
    evaluated = EVALUATED if recipe == "sft" else {}
    config, log, status = folder.with_suffix(".yaml"), folder.with_suffix(".log"), folder / COOLDOWN_STATUS
    given = {**TASK[recipe], **ENDLESS, **evaluated, **data, "time_budget": f"{budget}s"}
    config.write_text(yaml.safe_dump(given), encoding="utf-8")
    launch = ["-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu_2proc.yaml"]
    command = [sys.executable, *(launch if processes == 2 else []), f"recipes/{recipe}.py", "--config", str(config)]
    environment = {**child_environment(), "OMP_NUM_THREADS": "1"}
    others: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        while process.poll() is None:
            time.sleep(0.2)
            if is_loaded and not others and status.is_file() and _deadline(status) - time.time() < budget / 2:
                others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    for other in others:
        other.kill()
    if process.returncode:
        raise RunFailed(log.read_text(encoding="utf-8", errors="replace")[-2000:])
    report = audit(folder)
    rates = report.comparisons[0].actual
    return {
        **{"recipe": recipe, "processes": processes, "is_loaded": is_loaded, "budget": budget},
        "left": _deadline(status) - max(path.stat().st_mtime for path in folder.rglob("*")),
        "steps": report.record.steps_made,
        "changes": sum(plan.cooldown is not None for plan in report.record.plans),
        "is_on_floor": bool(rates[-1] == FLOOR * PEAK),
        "is_audited": report.ok and report.deviation == 0,
    }


def _deadline(status: Path) -> float:
    """The Unix time of the deadline, from the file that a running training writes."""
    return float(json.loads(status.read_text(encoding="utf-8"))["deadline"])


def traces_table(found: pd.DataFrame) -> list[str]:
    """Return the table of the simulated runs, a row for each kind of step times, and one for all."""
    columns = ("step times", "runs", "late", "left, s", "left, % of the budget", "changes", "on the floor", "rose")
    groups = [*found.groupby("kind", sort=False), ("all", found)]
    rows = [
        (
            *(kind, len(runs), int((runs["left"] < 0).sum()), _span(runs["left"])),
            *(_span(100 * runs["left"] / runs["budget"]), _span(runs["changes"], ".0f")),
            *(int(runs["is_on_floor"].sum()), int(runs["has_risen"].sum())),
        )
        for kind, runs in groups
    ]
    return table(columns, rows)


def runs_table(found: pd.DataFrame) -> list[str]:
    """Return the table of the real runs."""
    columns = ("recipe", "processes", "other load", "budget", "steps", "left, s", "left, %", "changes", "on the floor")
    rows = [
        (
            *(run.recipe, run.processes, "from the middle on" if run.is_loaded else "no", f"{run.budget} s", run.steps),
            *(f"{run.left:.2f}", f"{100 * run.left / run.budget:.1f}", run.changes, "yes" if run.is_on_floor else "no"),
        )
        for run in found.itertuples()
    ]
    return table(columns, rows)


def _span(values: pd.Series, digits: str = ".2f") -> str:
    return f"{values.median():{digits}} ({values.min():{digits}} to {values.max():{digits}})"


if __name__ == "__main__":
    sys.exit(main())
