"""Does `hf-sched sweep` find the best peak? Three tasks, five seed sets each, compared with other searches.

    python -m benchmarks.sweep.run --gsm8k FOLDER    # about an hour on two cores if started twice

Interrupted, or started several times at once, it continues or shares the trainings.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.common.reporting import command_line
from benchmarks.sweep.report import rank_table, search_table
from benchmarks.sweep.train import train_all
from hf_sched.finetune.pipeline import configure_logging


def main() -> None:
    """Train, search, and write runs.csv and report.md."""
    parser = command_line(__doc__)
    parser.add_argument("--gsm8k", type=Path, required=True, help="GSM8K's folder")
    parser.add_argument("--output", type=Path, default=Path("runs/sweep"), help="(default: %(default)s)")
    args = parser.parse_args()
    configure_logging(0)
    runs = train_all(args.gsm8k, args.output)
    runs.to_csv(args.output / "runs.csv", index=False)
    report = ["# Searches for the best peak", "", *search_table(runs), "", *rank_table(runs), ""]
    (args.output / "report.md").write_text("\n".join(report), encoding="utf-8")
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
