"""Measure what a recipe costs compared with TRL's own script at the same settings and seed.

    python -m benchmarks.overhead.run --rounds 9 --output docs/benchmarks     # three hours on one core

Three programs train the same model on the same data: `python -m trl.scripts.sft` (or grpo); the recipe, with all its
callbacks; and the recipe with one of our schedules, so that the guard checks each step. All learning rates are constant
and equal. Losses and saved weights must be equal bit for bit; otherwise nothing is reported.

Only one program works at a time, on one core. They take turns step by step, in shuffled order, so other load affects
all of them alike. A bound is met or missed only if the whole interval is on one side. The time in callbacks is counted
separately, because almost everything that a recipe adds to a step happens there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import date
from pathlib import Path

from benchmarks.common.intervals import Interval
from benchmarks.common.programs import BARE, RECIPE
from benchmarks.common.reporting import command_line, installed_versions, read_csv, table_head, table_row, write_csv
from benchmarks.overhead.rounds import ALL_ON, WORKLOADS, measure, programs

BOUNDS = {RECIPE: 1.01, ALL_ON: 1.02}
MEASURES = {
    "step_cpu": ("a step, CPU time", "{:.3g} s"),
    "step_wall": ("a step, wall time", "{:.3g} s"),
    "callbacks_cpu": ("a step, by the callbacks alone", "{:.3g} s in callbacks"),
    "process_cpu": ("whole process, CPU time", "{:.3g} s"),
    "process_wall": ("whole process, wall time", "{:.3g} s"),
    "peak_mib": ("peak memory", "{:.0f} MiB"),
}
Rounds = list[dict[str, dict[str, float]]]
Results = dict[str, Rounds]


def main() -> None:
    """Measure the requested workloads and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="at least 6 for a 95%% interval (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--core", type=int, default=0, help="the core to run on (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a folder for overhead.md and overhead.csv")
    args = parser.parse_args()
    # The programs inherit this. Compiled bytecode is kept, as on a user's second run.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    os.sched_setaffinity(0, {args.core})
    results: Results = {}
    for name in args.only:
        rounds = results.setdefault(name, [])
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = str(Path(folder, "cache"))
            for found in measure(programs(WORKLOADS[name], Path(folder)), args.rounds):
                rounds.append(found)
                print(f"{name}: round {len(rounds)} of {args.rounds}", file=sys.stderr, flush=True)
                if args.output:
                    write(args.output, results)
    print(report(results))


def report(results: Results) -> str:
    """Return the Markdown section."""
    versions = installed_versions("torch", "transformers", "trl", "accelerate")
    lines = ["## What the recipes cost", "", *table(results), ""]
    lines.append("Ratios are within a round: their median, and its 95% interval by ranks.")
    lines += [f"{key}: {WORKLOADS[key].steps} steps, {len(rounds)} rounds." for key, rounds in results.items()]
    return "\n".join([*lines, f"{date.today()}; {', '.join(map(' '.join, versions.items()))}."])


def table(results: Results) -> list[str]:
    """Return a row for each workload and measure."""
    lines = table_head("training", "", BARE, *(f"{name}, at most {bound:g}" for name, bound in BOUNDS.items()))
    for key, rounds in results.items():

        def estimate(name: str, what: str, rounds: Rounds = rounds) -> Interval:
            return Interval.of_median([found[name][what] for found in rounds])

        for measured, (what, form) in MEASURES.items():
            ratios = {name: estimate(name, f"{measured}_ratio") for name in BOUNDS}
            cells = (f"{ratio}: {ratio.at_most(BOUNDS[name])}" for name, ratio in ratios.items())
            lines.append(table_row(key, what, form.format(estimate(BARE, measured).center), *cells))
        more = (f"{estimate(name, 'once_cpu_more')} s more" for name in BOUNDS)
        once = f"{estimate(BARE, 'once_cpu').center:.3g} s"
        lines.append(table_row(key, "start and end, CPU time", once, *more))
    return lines


def write(folder: Path, results: Results) -> None:
    """Write overhead.md, and overhead.csv with a row for each round and program."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overhead.md").write_text(report(results) + "\n", encoding="utf-8")
    rows = [
        {"training": key, "round": number, "program": name} | {what: f"{value:.6g}" for what, value in row.items()}
        for key, rounds in results.items()
        for number, found in enumerate(rounds, 1)
        for name, row in found.items()
    ]
    write_csv(folder / "overhead.csv", rows)


def read(file: Path) -> Results:
    """Read the rounds that `write` stored."""
    results: Results = {}
    for row in read_csv(file):
        rounds, number, name = results.setdefault(row.pop("training"), []), int(row.pop("round")), row.pop("program")
        rounds.extend({} for _ in range(number - len(rounds)))
        rounds[number - 1][name] = {what: float(value) for what, value in row.items()}
    return results


if __name__ == "__main__":
    main()
