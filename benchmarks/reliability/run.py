"""Trainings that are killed, resumed and spread: do they keep to the planned learning rates, and to the same losses?

    python -m benchmarks.reliability.run                                   # half an hour on two cores
    python -m benchmarks.reliability.run --only kill-sft-1 --trials 3      # one case; the other rows stay as they were
    python -m benchmarks.reliability.run --missing                         # what has no row yet, after a stop

Runs the recipes with a tiny model and writes the table to docs/reliability.md, its rows to a JSON file beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common.recipe_runs import (
    ACCUMULATION,
    ROOT,
    SAVE_STEPS,
    SEQUENCES,
    STEPS,
    WARMUP_STEPS,
    RunFailed,
    Workshop,
)
from benchmarks.reliability.cases import BOUND, CASES, Row, Settings
from benchmarks.reliability.two_hosts import CannotRun

NOTHING = "-"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed")


def main() -> int:
    """Run the cases requested; the exit status is 1 if one of them does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="KIND", help=f"cases, or how they begin: {', '.join(CASES)}")
    parser.add_argument("--trials", type=int, default=6, help="kills of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills (default: %(default)s)")
    parser.add_argument("--missing", action="store_true", help="leave out cases that have been measured")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "reliability.md")
    args = parser.parse_args()
    wanted = [key for key in CASES if args.only is None or key.startswith(tuple(args.only))]
    if not wanted:
        parser.error(f"--only must name cases, or how they begin: {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        return int(not all([_measure(key, workshop, args) for key in wanted]))


def _measure(key: str, workshop: Workshop, args: argparse.Namespace) -> bool:
    if args.missing and key in read(args.output):
        return True
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {key}: {what}", flush=True)

    say("begins")
    try:
        rows = CASES[key](Settings(workshop, args.trials, args.seed, say))
    except CannotRun as reason:
        rows = [Row(key, NOTHING, 0, None, None, notes=f"not run: {reason}")]
    except RunFailed as error:
        say(f"FAILED: {error}")
        rows = [Row(key, NOTHING, 1, float("inf"), None, notes=f"failed: {error}")]
    results = read(args.output)
    results[key] = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "date": date.today().isoformat(),
        "seconds": round(time.monotonic() - began),
        "seed": args.seed,
        "versions": _versions(),
    }
    args.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    args.output.write_text(report(results), encoding="utf-8")
    say("holds" if all(row.holds for row in rows) else "DOES NOT HOLD")
    return all(row.holds for row in rows)


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def read(output: Path) -> dict[str, Any]:
    """The results so far, by case."""
    file = output.with_suffix(".json")
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def report(results: dict[str, Any]) -> str:
    """The page, from results that may be incomplete."""
    lines = [
        "# Killed, resumed and spread trainings",
        "",
        "Each case is a real training on CPU by `recipes/sft.py` or `recipes/grpo.py`, on the sorting task with a tiny "
        f"model: {STEPS} optimizer steps of {SEQUENCES} sequences, however many processes share them, in "
        f"{ACCUMULATION} accumulated parts; `cosine_floor` with a warmup of {WARMUP_STEPS} steps; a checkpoint every "
        f"{SAVE_STEPS} steps. GRPO is rewarded for the share of digits in a completion: an untrained model gives no "
        "right answer, so that rewards for those, and all losses, would be 0.",
        "",
        "What is compared, at every step: the learning rate with `Schedule.curve` and with the training that the case "
        "is held against, and the loss with that training's. The table has the largest absolute difference of all "
        "steps and trials; 0 means equal bit for bit. A run of other length, or that fails, counts as inf.",
        "",
        "After a kill, the same command runs again, with `resume_from_checkpoint: auto`. The moments of the kills are "
        "random, uniform between the first optimizer step and the end; one in three is aimed at a checkpoint that is "
        "being written. Learning rates must not deviate at all, nor losses after a kill; other losses may by "
        f"{BOUND:g}, because sums in another order are rounded differently. Two hosts are two network namespaces "
        "joined by a veth pair, each with checkpoints of its own.",
        "",
        "| case | processes | trials | deviation of the rate | deviation of the loss | holds | notes |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in CASES:
        found = results.get(key, {"rows": [dataclasses.asdict(Row(key, NOTHING, 0, None, None, notes="not run yet"))]})
        lines += [_line(Row(**row)) for row in found["rows"]]
    lines += ["", *_measured(results)]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    holds = NOTHING if not row.trials else "yes" if row.holds else "**no**"
    cells = [row.case, row.processes, str(row.trials), _figure(row.rate), _figure(row.loss), holds, row.notes]
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2g}"


def _measured(results: dict[str, Any]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for key in (key for key in CASES if key in results):
        versions = ", ".join(f"{name} {version}" for name, version in results[key]["versions"].items())
        groups.setdefault((results[key]["date"], versions), []).append(key)
    lines = [f"Measured on {day} with {versions}: {', '.join(keys)}." for (day, versions), keys in groups.items()]
    minutes = sum(result["seconds"] for result in results.values()) / 60
    return [
        "`python -m benchmarks.reliability.run` runs all of it and writes this page; `--only KIND` one case.",
        "",
        *lines,
        "",
        f"The times of all cases add up to {minutes:.0f} minutes, on two CPU cores shared with other work.",
    ]


if __name__ == "__main__":
    sys.exit(main())
