"""How hf_sched compares: the time of `step()`, of a whole curve and of the import, and the memory of a schedule.

    python benchmarks/schedulers.py                     # minutes; prints Markdown
    python benchmarks/schedulers.py --quick             # seconds; rough: one-off costs weigh more in short runs
    python benchmarks/schedulers.py --only step curve --output figures.json --check

Everything is timed once a round, in an order shuffled for each; a figure is the median over the rounds. Libraries that
are not installed are left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import timeit
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import contenders
import curves
from contenders import CONTENDERS, PEAK, Contender
from curves import CURVES, Curve
from measure import Section, Target, Timing, interleave, table_head, table_row

# Steps of a run by the number of parameter groups.
RUNS = {1: 20_000, 10: 10_000, 100: 10_000, 1000: 2_000}
QUICK_RUNS = {1: 1_000, 10: 500, 100: 200, 1000: 100}

IMPORTS = {
    "hf_sched": "import hf_sched",
    "hf_sched, its scheduler": "from hf_sched import ScheduleLR",
    "numpy": "import numpy",
    "torch": "import torch.optim.lr_scheduler",
    "transformers": "from transformers import get_scheduler",
    "timm": f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import timm_scheduler",
    "pytorch_optimizer": "from pytorch_optimizer import CosineScheduler",
    "pytorch_scheduler": "from pytorch_scheduler import CosineWithWarmupScheduler",
    "optax": "from optax import warmup_cosine_decay_schedule",
}
QUICK_IMPORTS = ("hf_sched", "numpy", "torch")
WITH_TORCH = ("hf_sched, its scheduler", "transformers", "timm", "pytorch_optimizer", "pytorch_scheduler")
IMPORT_NOTES = {
    "hf_sched": "with numpy, without torch: enough to build schedules and to register their names",
    "numpy": "the part of it that is numpy's",
    **dict.fromkeys(WITH_TORCH, "with torch, which its users pay for"),
    "timm": "its schedulers alone, with torch",
    "optax": "with jax",
}

PACKAGES = ("numpy", "torch", "transformers", "timm", "pytorch_optimizer", "pytorch_scheduler", "optax", "jax")

# What must be given. Stairs of one step would be as many as there are steps.
NEEDED: dict[str, dict[str, object]] = {
    "cosine_cyclic": {"half_period": "4%"},
    "exponential": {"gamma": 0.9},
    "multistep": {"milestones": ["50%", "75%"]},
    "phases": {"phases": "hold | decay 20%"},
    "step": {"step_size": 1},
}
MEMORY_STEPS = (10**3, 10**6, 10**9)
# CPython keeps numbers above 256 apart, in some 30 bytes each, so that a long run's take a little more.
MEMORY_GROWTH = 1.25


def measure_step(quick: bool = False) -> Section:
    """The time of a call of `step()`, on average over a whole run."""
    runs, rounds = (QUICK_RUNS, 3) if quick else (RUNS, 7)
    section = Section("step(): time per call", row_notes={contender.name: contender.note for contender in CONTENDERS})
    section.remarks.append(
        f"On average over whole runs of {', '.join(f'{steps:,}' for steps in runs.values())} steps with "
        f"{', '.join(map(str, runs))} parameter groups; a tenth of the steps are warmup. Making the scheduler is not "
        "timed."
    )
    installed, left_out = _installed(CONTENDERS)
    section.remarks += left_out
    for groups, steps in runs.items():
        for own_rates in (False, True) if groups > 1 else (False,):
            peaks = [PEAK * (number + 1) / groups if own_rates else PEAK for number in range(groups)]
            able = [contender for contender in installed if contender.own_rates or not own_rates]
            for contender in able:
                contenders.check(contender, peaks)
            clocks = {contender.name: _step_clock(contender, peaks, steps) for contender in able}
            column = f"{groups} groups, {'a rate each' if own_rates else 'one rate'}" if groups > 1 else "1 group"
            section.columns[column] = timings = interleave(clocks, rounds)
            section.targets += _step_targets(column, groups, timings)
    section.remarks += [
        f"{contender.name} has one rate for all groups." for contender in installed if not contender.own_rates
    ]
    return section


def measure_curve(quick: bool = False) -> Section:
    """The time of the learning rates of all steps of a run, for one parameter group."""
    steps, slow_steps = (100_000, 2_000) if quick else (1_000_000, 20_000)
    section = Section(f"A whole curve of {steps:,} steps", row_notes={curve.name: curve.note for curve in CURVES})
    installed, left_out = _installed(CURVES)
    section.remarks.append(
        f"What is not vectorised is timed on a run of {slow_steps:,} steps, and the time multiplied by "
        f"{steps // slow_steps}."
    )
    section.remarks += left_out
    for curve in installed:
        rates = curve.ready(contenders.CHECKED_WARMUP, contenders.CHECKED_STEPS)()
        contenders.check_rates(curve.name, list(map(float, rates)), PEAK)
    clocks = {curve.name: _curve_clock(curve, steps, steps if curve.vectorised else slow_steps) for curve in installed}
    timings = interleave(clocks, 3 if quick else 11)
    section.columns["a curve"] = timings
    section.targets = [
        Target("curve: times as fast as transformers", timings[curves.TRANSFORMERS.name].ratio, at_least=20),
        Target("curve: times as long as plain NumPy", 1 / timings[curves.NUMPY.name].ratio, at_most=1.5),
    ]
    return section


def measure_import(quick: bool = False) -> Section:
    """The time of imports, each in a fresh interpreter that has already started."""
    section = Section("Import", row_notes=IMPORT_NOTES)
    statements = {name: IMPORTS[name] for name in QUICK_IMPORTS} if quick else dict(IMPORTS)
    for name, statement in list(statements.items()):
        try:
            _import_seconds(statement)  # compiles the files and brings them into memory
        except subprocess.CalledProcessError as error:
            section.remarks.append(f"Left out: {name} ({error.stderr.strip().splitlines()[-1]}).")
            del statements[name]
    clocks = {name: functools.partial(_import_seconds, statement) for name, statement in statements.items()}
    section.columns["time"] = interleave(clocks, 1 if quick else 7)
    if quick:
        section.remarks.append("Only these, since the others take seconds.")
    return section


def measure_memory(quick: bool = False) -> Section:
    """The memory of schedules for runs of different lengths, after they have given learning rates."""
    section = Section("Memory of a schedule, in bytes")
    columns: dict[int, dict[str, int]] = {steps: {} for steps in MEMORY_STEPS}
    for name in importlib.import_module("hf_sched").available():
        for steps, column in columns.items():
            column[name] = _schedule_bytes(name, steps)
    section.columns = {f"{steps:,} steps": column for steps, column in columns.items()}
    short, *_, long = columns.values()
    what = f"memory: times as many bytes for {MEMORY_STEPS[-1]:,} steps as for {MEMORY_STEPS[0]:,}, the most of any"
    section.targets = [Target(what, max(long[name] / short[name] for name in long), at_most=MEMORY_GROWTH)]
    return section


SECTIONS: dict[str, Callable[[bool], Section]] = {
    "step": measure_step,
    "curve": measure_curve,
    "import": measure_import,
    "memory": measure_memory,
}


def header() -> str:
    """When, on what and with what versions."""
    cpu_info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpu_info.read_text()) if cpu_info.exists() else []
    cpu = models[0] if models else platform.processor() or platform.machine()
    return f"{date.today()}, {cpu}, Python {platform.python_version()}, {', '.join(_versions())}"


def targets_table(targets: Sequence[Target]) -> str:
    """The targets, and which are met."""
    lines = ["## Targets", "", *table_head("", "wanted", "measured", "")]
    for target in targets:
        lines.append(
            table_row(target.what, target.wanted, f"{target.measured:.3g}", "met" if target.met else "**NOT met**")
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs and few rounds: the figures are rough")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="leave the others out")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the figures, as JSON")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a target is missed")
    args = parser.parse_args()
    # SequentialLR itself does what torch deprecates.
    warnings.filterwarnings("ignore", message="The epoch parameter")

    print(f"# Benchmarks of hf_sched\n\n{header()}\n")
    print("Medians over interleaved rounds; in brackets, how many times as long as hf_sched takes.\n", flush=True)
    sections: dict[str, Section] = {}
    for name in args.only:
        sections[name] = SECTIONS[name](args.quick)
        print(f"{sections[name]}\n", flush=True)
    targets = [target for section in sections.values() for target in section.targets]
    print(targets_table(targets))
    if args.output:
        figures = {
            "header": header(),
            "quick": args.quick,
            "sections": {name: dataclasses.asdict(section) for name, section in sections.items()},
            "missed": [target.what for target in targets if not target.met],
        }
        args.output.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if args.check and not all(target.met for target in targets):
        sys.exit(1)


T = TypeVar("T", Contender, Curve)


def _installed(wanted: Sequence[T]) -> tuple[list[T], list[str]]:
    """Those whose library can be imported, and a remark about each that cannot."""
    missing = contenders.missing([contender.module for contender in wanted])
    return (
        [contender for contender in wanted if contender.module not in missing],
        [
            f"Left out: {contender.name} ({missing[contender.module]})."
            for contender in wanted
            if contender.module in missing
        ],
    )


def _step_clock(contender: Contender, peaks: Sequence[float], steps: int) -> Callable[[], float]:
    def clock() -> float:
        optimizer, scheduler = contender.start(peaks, steps // 10, steps)
        seconds = timeit.timeit(scheduler.step, number=steps)  # without garbage collection
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            contenders.check_end(contender.name, group["lr"], peak)
        return seconds / steps

    return clock


def _curve_clock(curve: Curve, steps: int, timed_steps: int) -> Callable[[], float]:
    return lambda: timeit.timeit(curve.ready(timed_steps // 10, timed_steps), number=1) * (steps / timed_steps)


def _step_targets(column: str, groups: int, timings: Mapping[str, Timing]) -> Iterator[Target]:
    wanted = {1: 3, 10: 3, 1000: 10}.get(groups)
    if wanted:
        faster = timings[contenders.TRANSFORMERS.name].ratio
        yield Target(f"step(), {column}: times as fast as transformers", faster, at_least=wanted)
    longer = 1 / timings[contenders.BARE_LOOP.name].ratio
    yield Target(f"step(), {column}: times as long as the bare loop", longer, at_most=2)


def _import_seconds(statement: str) -> float:
    code = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    # An empty setting is none: users' Python keeps the files that it has compiled.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def _schedule_bytes(name: str, steps: int) -> int:
    """The bytes that stay taken for as long as the schedule is kept."""
    hf_sched = importlib.import_module("hf_sched")

    def used_schedule() -> object:
        schedule = hf_sched.build(name, num_training_steps=steps, num_warmup_steps=steps // 10, **NEEDED.get(name, {}))
        for step in (0, steps // 2, steps - 1):
            schedule.lr(step, peak=PEAK)
        return schedule

    for _ in range(3):  # what first calls leave behind in Python is not the schedule's
        used_schedule()
    gc.disable()  # so that all garbage is young: to collect the whole of torch takes long
    tracemalloc.start()
    try:
        kept = used_schedule()
        gc.collect(0)
        size, _ = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
        gc.enable()
    return size


def _versions() -> Iterator[str]:
    yield f"hf_sched {importlib.import_module('hf_sched').__version__}"  # which may be run without being installed
    for package in PACKAGES:
        for found in importlib.metadata.distributions(name=package, path=[str(Path(sys.prefix, "timm")), *sys.path]):
            yield f"{package} {found.version}"
            break


if __name__ == "__main__":
    main()
