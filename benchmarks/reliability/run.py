"""Do interrupted and distributed runs train exactly as planned, and to the same losses?

    python -m benchmarks.reliability.run                                  # half an hour on two cores
    python -m benchmarks.reliability.run --only kill-sft-1 --trials 3     # one case; the other rows stay as they are

Runs the recipes with a tiny model. Writes the table into docs/reliability.md and its rows to a JSON file next to it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common.reporting import command_line, installed_versions, table
from benchmarks.common.task import ROOT, RunFailed
from benchmarks.reliability.cases import CASES, Row
from tests.helpers.recipe_runs import Workshop

logger = logging.getLogger(__name__)
MARKER = "<!-- written by benchmarks/reliability -->"
PAGE = ROOT / "docs" / "reliability.md"


def main() -> int:
    """Run the requested cases; the exit status is 1 if one of them does not hold."""
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="(default: all)")
    parser.add_argument("--trials", type=int, default=6, help="kills per case (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=PAGE, help="(default: docs/reliability.md)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    all_hold = True
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for key in args.only:
            start = time.monotonic()
            logger.info("%s starts", key)
            try:
                rows = CASES[key](workshop, args.trials)
            except RunFailed as error:
                rows = [Row(key, 0, 1, float("inf"), None, notes=f"failed: {error}")]
            result = {
                "rows": [dataclasses.asdict(row) for row in rows],
                "date": date.today().isoformat(),
                "seconds": round(time.monotonic() - start),
                "versions": installed_versions("torch", "transformers", "trl", "accelerate", "deepspeed"),
            }
            write(args.output, {**read(args.output), key: result})
            holds = all(row.holds for row in rows)
            logger.info("%s %s", key, "holds" if holds else "DOES NOT HOLD")
            all_hold = all_hold and holds
    return int(not all_hold)


def read(output: Path) -> dict[str, Any]:
    """Return the results so far, by case."""
    file = output.with_suffix(".json")
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def report(results: dict[str, Any]) -> str:
    """Return the table and its provenance; results may be incomplete."""
    rows: list[list[object]] = []
    groups: dict[str, list[str]] = {}
    for key in filter(results.__contains__, CASES):
        for row in (Row(**given) for given in results[key]["rows"]):
            rate, loss = ("-" if value is None else f"{value:.2g}" for value in (row.rate, row.loss))
            holds = "yes" if row.holds else "**no**"
            rows.append([row.case, row.processes, row.trials, rate, loss, holds, row.notes])
        versions = ", ".join(map(" ".join, results[key]["versions"].items()))
        groups.setdefault(f"Measured on {results[key]['date']} with {versions}", []).append(key)
    minutes = sum(result["seconds"] for result in results.values()) / 60
    columns = ("case", "processes", "trials", "deviation of the rate", "deviation of the loss", "holds", "notes")
    lines = [line for group, keys in groups.items() for line in ("", f"{group}: {', '.join(keys)}.")]
    took = f"All cases together took {minutes:.0f} minutes on two CPU cores."
    return "\n".join([*table(columns, rows), *lines, "", took])


def write(page: Path, results: dict[str, Any]) -> None:
    """Write the JSON file, and replace the report in the page, which follows the marker."""
    page.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    page.write_text(f"{text.partition(MARKER)[0]}{MARKER}\n\n{report(results)}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
