"""What a recipe costs beside the bare TRL script at the same settings and seed: a step, the whole process, memory.

    python -m benchmarks.overhead.run --rounds 9 --output docs/benchmarks          # three hours on one core
    python -m benchmarks.overhead.run --only sft-real                              # one workload; the others stay

Three programs train the same model on the same data: `python -m trl.scripts.sft` (or grpo); our recipe, which adds its
progress, learning-rate log, live control, stop at divergence, advice, preview and run.json; and our recipe with
everything on, under a schedule of ours, so that the guard checks each step and live control could change the rest. All
rates are equal (`constant`, and `phases: hold`), and so must losses and saved weights be, to the bit: otherwise nothing
is reported.

Only one program is at work at a time, on one core: they take turns step by step, in shuffled order, and what else the
machine does hits all alike. A round's ratio of a step is the median over its steps, each beside the same step of
the bare script; the median of the rounds is given, with its 95% interval by ranks. A bound is met, or missed, only
where the whole interval says so. Since a hundredth of a step is easily lost in noise, what callbacks take is also
counted by itself, in the same runs: nearly all that a recipe does at a step, it does there.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common.intervals import Estimate
from benchmarks.common.programs import WARM_UP, Observed, Program, run_alone, run_in_turns
from benchmarks.common.recipe_runs import ROOT, RunFailed
from benchmarks.common.reporting import table_head, table_row
from benchmarks.common.scripts import BARE, RECIPE, training

ALL_ON = "recipe, everything on"
BOUNDS = {RECIPE: 1.01, ALL_ON: 1.02}
CONSTANT: dict[str, dict[str, Any]] = {
    BARE: {"lr_scheduler_type": "constant"},
    RECIPE: {"lr_scheduler_type": "constant"},
    ALL_ON: {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold"}},
}
MEASURES = {
    "step_cpu": ("a step, CPU time", "{:.3g} s"),
    "step_wall": ("a step, wall time", "{:.3g} s"),
    "callbacks_cpu": ("a step, by what callbacks add to the script's", "{:.3g} s in callbacks"),
    "process_cpu": ("whole process, CPU time", "{:.3g} s"),
    "process_wall": ("whole process, wall time", "{:.3g} s"),
    "peak_mib": ("peak memory", "{:.0f} MiB"),
}
PACKAGES = ("torch", "transformers", "trl", "accelerate")
# A user's second run finds everything compiled.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}

COMMON: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "seed": 0,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "learning_rate": 1e-4,
}
OWN: dict[str, dict[str, Any]] = {
    "sft": {"max_length": 64},
    # An untrained model gives no right answer: under `exact_answer` all losses would be 0, and agree for that reason.
    "grpo": {
        "num_generations": 8,
        "max_completion_length": 10,
        "reward_funcs": ["benchmarks.common.recipe_runs.share_of_digits"],
    },
}


@dataclass(frozen=True)
class Workload:
    """A training that is measured."""

    kind: str
    layers: int
    width: int
    batch: int
    steps: int
    about: str


_REAL, _TINY = "a Llama of {:.0f}M parameters: real fine-tuning", "a Llama of {:.1f}M parameters: the worst case"
# The real ones are as long as the demo's SFT (two to three minutes of CPU time here): one start of a process differs
# from the next by more than ours adds to it, and would hide what a shorter run costs as a whole.
WORKLOADS = {
    "sft-real": Workload("sft", 4, 512, 8, 300, _REAL.format(16.8)),
    "grpo-real": Workload("grpo", 4, 512, 8, 300, _REAL.format(16.8)),
    "sft-tiny": Workload("sft", 2, 128, 16, 40, _TINY.format(0.5)),
    "grpo-tiny": Workload("grpo", 2, 128, 16, 40, _TINY.format(0.5)),
}


def programs(workload: Workload, folder: Path, task: Path) -> dict[str, Program]:
    """The three, with output folders of their own."""
    arguments = {
        "model_name_or_path": str(task / "model"),
        "dataset_name": str(task / workload.kind),
        "per_device_train_batch_size": workload.batch,
        "max_steps": workload.steps,
        **COMMON,
        **OWN[workload.kind],
    }
    script = {BARE: BARE, RECIPE: RECIPE, ALL_ON: RECIPE}
    return {
        name: training(script[name], workload.kind, folder / name.replace(" ", "_"), {**arguments, **CONSTANT[name]})
        for name in CONSTANT
    }


def make_task(workload: Workload, folder: Path) -> Path:
    """The sorting task with a model of the workload's size."""
    make = [
        sys.executable,
        "-m",
        "hf_sched.finetune.demo.sorting_task",
        "--output_dir",
        str(folder),
        "--train",
        "2000",
        "--test",
        "20",
    ]
    sizes = ["--layers", str(workload.layers), "--width", str(workload.width)]
    subprocess.run([*make, *sizes], cwd=ROOT, check=True, capture_output=True)
    return folder


def refuse_other_training(observed: Mapping[str, Observed]) -> None:
    """Raise RunFailed unless all of them were the same training, to the bit."""
    bare = observed[BARE]
    if not any(bare.logged("grad_norm")):
        raise RunFailed("the bare script logged no gradient other than 0, so that equal losses would show nothing")
    for name, other in observed.items():
        for key in ("loss", "grad_norm"):
            if other.logged(key) != bare.logged(key):
                raise RunFailed(f"{name!r} is another training than the bare script: its `{key}` differs")
        if other.weights != bare.weights:
            raise RunFailed(f"{name!r} is another training than the bare script: the weights it saved differ")


def figures(observed: Mapping[str, Observed]) -> dict[str, dict[str, float]]:
    """What a round measured of each program, and its ratios to the bare script."""
    bare = observed[BARE]
    found: dict[str, dict[str, float]] = {}
    for name, one in observed.items():
        steps = one.steps[WARM_UP:]
        pairs = list(zip(steps, bare.steps[WARM_UP:], strict=True))
        found[name] = {
            "step_cpu": statistics.median(step.cpu for step in steps),
            "step_wall": statistics.median(step.wall for step in steps),
            "callbacks_cpu": statistics.median(step.callbacks for step in steps),
            "process_cpu": one.cpu,
            "process_wall": one.wall,
            "peak_mib": one.peak_bytes / 2**20,
            "once_cpu": one.cpu - sum(step.cpu for step in one.steps),
            "step_cpu_ratio": statistics.median(ours.cpu / theirs.cpu for ours, theirs in pairs),
            "step_wall_ratio": statistics.median(ours.wall / theirs.wall for ours, theirs in pairs),
            "callbacks_cpu_ratio": 1
            + statistics.median((ours.callbacks - theirs.callbacks) / theirs.cpu for ours, theirs in pairs),
        }
    theirs = found[BARE]
    for row in found.values():
        row |= {f"{key}_ratio": row[key] / theirs[key] for key in MEASURES if f"{key}_ratio" not in row}
        row["once_cpu_more"] = row["once_cpu"] - theirs["once_cpu"]
    return found


def measure(
    trainings: Mapping[str, Program], rounds: int, *, seed: int = 0, core: int | None = None
) -> Iterator[dict[str, dict[str, float]]]:
    """The figures of each round; one program runs before them, and fills the caches of all.

    Raises:
        RunFailed: A program failed, or they are not the same training.
    """
    order = random.Random(seed)
    run_alone(trainings[ALL_ON], core=core, environment=ENVIRONMENT)
    for _ in range(rounds):
        observed = run_in_turns(trainings, order, core=core, environment=ENVIRONMENT)
        refuse_other_training(observed)
        yield figures(observed)


def estimates(measured: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> dict[str, Estimate]:
    """Of each figure of a program, over the rounds."""
    return {key: Estimate.of([found[name][key] for found in measured]) for key in measured[0][name]}


def report(results: Mapping[str, Any]) -> str:
    """The Markdown section."""
    wanted = (f"{name}, at most {bound:g}" for name, bound in BOUNDS.items())
    lines = ["## What the recipes cost", "", *table_head("training", "", BARE, *wanted)]
    for key, result in results.items():
        bare = estimates(result["rounds"], BARE)
        others = {name: estimates(result["rounds"], name) for name in BOUNDS}
        for measure, (what, form) in MEASURES.items():
            ratios = {name: other[f"{measure}_ratio"] for name, other in others.items()}
            cells = (f"{ratio}: {ratio.at_most(BOUNDS[name])}" for name, ratio in ratios.items())
            lines.append(table_row(key, what, form.format(bare[measure].median), *cells))
        more = (f"{other['once_cpu_more']} s more" for other in others.values())
        lines.append(table_row(key, "start and end, CPU time", f"{bare['once_cpu'].median:.3g} s", *more))
    lines += ["", "Ratios are of the same round: their median, and its 95% interval by ranks.", ""]
    for key, result in results.items():
        about, steps, rounds = (result[what] for what in ("about", "steps", "rounds"))
        lines.append(f"- {key}: {about}; {steps} steps, {len(rounds)} rounds; {result['date']}, {result['versions']}")
    return "\n".join(lines)


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """overhead.json, .md and .csv, a row for each round and program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overhead.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "overhead.md").write_text(report(results) + "\n", encoding="utf-8")
    with (folder / "overhead.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        rows = [
            {"training": key, "round": number, "program": name} | {what: f"{value:.6g}" for what, value in row.items()}
            for key, result in results.items()
            for number, found in enumerate(result["rounds"], 1)
            for name, row in found.items()
        ]
        table.writerows([list(rows[0]), *(list(row.values()) for row in rows)])


def read(folder: Path) -> dict[str, Any]:
    """What was measured before, by workload."""
    file = folder / "overhead.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def rounds_to_keep(result: Mapping[str, Any], name: str) -> list[Any]:
    """The rounds measured before, if they are of the same training."""
    for what, now in (("steps", WORKLOADS[name].steps), ("versions", versions())):
        if result[what] != now:
            sys.exit(f"overhead.py: error: `--add` to {name}: its {what} were {result[what]!r}, and are {now!r} now")
    return list(result["rounds"])


def versions() -> str:
    """What it was measured with."""
    named = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return f"Python {platform.python_version()}, {', '.join(named)}; {platform.system()}, {os.cpu_count()} cores"


def main() -> None:
    """Measure the workloads requested and print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="6 or more for a 95%% interval (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="TRAINING")
    parser.add_argument("--core", type=int, help="the core to run on (default: the first that is allowed)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a folder for overhead.md, .json and .csv")
    parser.add_argument("--add", action="store_true", help="add rounds to those that --output has of the same training")
    args = parser.parse_args()
    if args.add and not args.output:
        parser.error("`--add` needs `--output`, the folder of the rounds to add to")
    core = args.core
    if core is None and hasattr(os, "sched_getaffinity"):
        core = min(os.sched_getaffinity(0))
    results = read(args.output) if args.output else {}
    earlier = {name: rounds_to_keep(results[name], name) for name in args.only if args.add and name in results}
    for name in args.only:
        workload = WORKLOADS[name]
        print(f"{name}: {workload.about}, {workload.steps} steps", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
            trainings = programs(workload, Path(folder), make_task(workload, Path(folder, "task")))
            rounds = earlier.get(name, [])
            number = len(rounds) + args.rounds
            for found in measure(trainings, args.rounds, seed=args.seed + len(rounds), core=core):
                rounds.append(found)
                print(f"  round {len(rounds)} of {number}", file=sys.stderr, flush=True)
                about = {"about": workload.about, "steps": workload.steps, "date": date.today().isoformat()}
                results[name] = {**about, "versions": versions(), "rounds": rounds}
                if args.output:
                    write(args.output, {name: results[name] for name in WORKLOADS if name in results})
    print(report({name: results[name] for name in WORKLOADS if name in results}))


if __name__ == "__main__":
    main()
