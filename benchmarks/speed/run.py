"""Measure the CPU time of `step()`, of the callbacks, of a whole curve and of the import.

    python -m benchmarks.speed.run            # minutes; prints Markdown
    python -m benchmarks.speed.run --quick    # seconds; fewer contenders, steps and rounds
    python -m benchmarks.speed.run --check    # exit status 1 if a bound is missed

Contenders take turns in interleaved rounds. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import warnings
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import torch

from benchmarks.common.reporting import installed_versions, table_head
from benchmarks.speed import callbacks, contenders
from benchmarks.speed.contenders import PEAK, SCHEDULERS
from benchmarks.speed.timing import Bound, Section, Timing, interleave

# By column: parameter groups, whether each has its own rate, whether the rates are tensors, steps of the run.
STEP_COLUMNS = {
    "1 group": (1, False, False, 20_000),
    "10 groups": (10, True, False, 10_000),
    "1000 groups, one rate": (1000, False, False, 2_000),
    "1000 groups, a rate each": (1000, True, False, 2_000),
    "1 tensor": (1, False, True, 5_000),
    "10 tensors": (10, True, True, 2_000),
}
# Bounds: times as fast as transformers, times as long as the bare loop.
STEP_BOUNDS = {
    "1 group": (8, 3),
    "10 groups": (8, 3),
    "1000 groups, one rate": (15, 3),
    "1000 groups, a rate each": (15, 3),
    "1 tensor": (2, None),
    "10 tensors": (2, None),
}
QUICK_CONTENDERS = ("hf_sched", "bare loop", "transformers")
IMPORTS = {
    "hf_sched": "import hf_sched",
    "hf_sched, its scheduler (with torch)": "from hf_sched import ScheduleLR",
    "numpy": "import numpy",
    "torch": "import torch.optim.lr_scheduler",
    "transformers (with torch)": "from transformers import get_scheduler",
}


def measure_step(quick: bool = False) -> Section:
    """The time of a call of `step()`, on average over a whole run."""
    section = Section("step(): time per call")
    for column, (groups, own_rates, tensors, steps) in STEP_COLUMNS.items():
        steps = 200 if quick and groups > 10 else steps

        def peaks(groups: int = groups, own: bool = own_rates, tensors: bool = tensors) -> list[float | torch.Tensor]:
            rates = [PEAK * (number + 1) / groups if own else PEAK for number in range(groups)]
            return [torch.tensor(rate) for rate in rates] if tensors else [*rates]

        names = [name for name in QUICK_CONTENDERS if quick] or [*SCHEDULERS]
        names = [name for name in names if not (tensors and name in contenders.FLOATS_ONLY)]
        for name in names:
            contenders.check(name, peaks())

        def clock(name: str, peaks: Callable[[], list[float | torch.Tensor]] = peaks, steps: int = steps) -> float:
            _, scheduler = contenders.start(name, peaks(), steps // 10, steps)
            return timeit.timeit(scheduler.step, timer=time.thread_time, number=steps) / steps

        timings = interleave({name: functools.partial(clock, name) for name in names}, 7)
        section.columns[column] = timings
        faster, longer = STEP_BOUNDS[column]
        what = f"step(), {column}: times as fast as transformers"
        section.bounds.append(Bound(what, timings["transformers"].ratio, at_least=faster))
        if longer is not None:
            what = f"step(), {column}: times as long as the bare loop"
            section.bounds.append(Bound(what, 1 / timings["bare loop"].ratio, at_most=longer))
    section.remarks.append(
        "The bare loop looks up rates that were computed before. The scheduler of transformers is a LambdaLR. torch's "
        "CosineAnnealingLR has no warmup; its SequentialLR joins a LinearLR and a CosineAnnealingLR. A tensor is a "
        "float32 learning rate on the CPU, filled in place."
    )
    return section


def measure_callbacks(quick: bool = False) -> Section:
    """The time that callbacks add to an optimizer step without a log line, with one parameter group."""
    steps, rounds = (1_000, 7) if quick else (4_000, 15)
    seconds: dict[str, list[float]] = {name: [] for name in callbacks.CASES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, (make, scheduled) in callbacks.CASES.items():
                seconds[name].append(callbacks.clock(Path(folder), steps, make, scheduled))
    base = {"median": statistics.median(seconds["nothing"]), "best": min(seconds.pop("nothing"))}
    added = {
        name: (statistics.median(taken) - base["median"], min(taken) - base["best"]) for name, taken in seconds.items()
    }
    reference = added["scheduler"][1]
    rows = {name: Timing(median, best, best / reference) for name, (median, best) in added.items()}
    both = 1e6 * (rows["scheduler, log and live control"].best - rows["scheduler"].best)
    return Section(
        "Callbacks: time added to an optimizer step",
        {"a step (compared with the scheduler)": rows},
        [
            Bound("scheduler and guard, µs per step", 1e6 * rows["scheduler and guard"].best, at_most=5),
            Bound("log and live control together, µs per step without a log line", both, at_most=20),
        ],
        ["One parameter group, float learning rate, no log line."],
    )


def measure_curve(quick: bool = False) -> Section:
    """The time of the learning rates of a whole run, for one parameter group."""
    steps, scalar_steps = (100_000, 2_000) if quick else (1_000_000, 20_000)
    functions = contenders.curves(steps // 10, steps, scalar_steps)

    def clock(function: Callable[[], object], computed: int) -> float:
        return timeit.timeit(function, timer=time.process_time, number=1) * steps / computed

    clocks = {name: functools.partial(clock, *of_name) for name, of_name in functions.items()}
    timings = interleave(clocks, 5 if quick else 11)
    return Section(
        f"A whole curve of {steps:,} steps",
        {"a curve": timings},
        [
            Bound("curve: times as fast as transformers", timings["transformers"].ratio, at_least=20),
            Bound("curve: times as long as plain NumPy", 1 / timings["plain NumPy"].ratio, at_most=1.5),
        ],
        [f"transformers and torch compute one step at a time: timed on {scalar_steps:,} steps and scaled."],
    )


def measure_import(quick: bool = False) -> Section:
    """The time of imports, each in a fresh interpreter."""
    clocks = {name: functools.partial(_import_seconds, statement) for name, statement in IMPORTS.items()}
    return Section("Import", {"time": interleave(clocks, 2 if quick else 7)})


def _import_seconds(statement: str) -> float:
    code = f"import time; start = time.process_time(); {statement}; print(time.process_time() - start)"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # users have compiled files
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


SECTIONS: dict[str, Callable[[bool], Section]] = {
    "step": measure_step,
    "callbacks": measure_callbacks,
    "curve": measure_curve,
    "import": measure_import,
}


def report(sections: Iterable[Section]) -> str:
    """The page docs/speed.md."""
    sections = list(sections)
    cpu_info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpu_info.read_text()) if cpu_info.exists() else []
    versions = installed_versions("hf_sched", "numpy", "torch", "transformers", "optax", "jax")
    setup = [str(date.today()), models[0] if models else platform.machine(), *map(" ".join, versions.items())]
    bounds = [str(bound) for section in sections for bound in section.bounds]
    return "\n\n".join(
        [
            "# Speed, side by side with other libraries",
            "Output of `make benchmark`. CPU times, medians over interleaved rounds; in brackets, the ratio to "
            "hf_sched in the fastest rounds. Other programs were running, so trust the ratios more than the times.",
            ", ".join(setup),
            *map(str, sections),
            "\n".join(["## Bounds", "", *table_head("", "limit", "measured", ""), *bounds]),
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs and few rounds")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bound is missed")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="The epoch parameter")  # SequentialLR uses it
    sections = [SECTIONS[name](args.quick) for name in args.only]
    print(report(sections))
    if args.check and not all(bound.is_met for section in sections for bound in section.bounds):
        sys.exit(1)


if __name__ == "__main__":
    main()
