"""A report of runs: learning rate planned and actual, loss, reward, speed, answers before and after, how it was made.

    python -m hf_sched.finetune.reports.report --runs runs/sft --html
    python -m hf_sched.finetune.reports.report --runs runs/sft runs/sft_lower_rate --compare --output comparison.html
    python -m hf_sched.finetune.reports.report --runs runs/demo/sft runs/demo/grpo \\
        --evaluation runs/demo/evaluation.json --output runs/demo/report.md

A run is the `output_dir` of a Trainer, finished or killed, by a recipe or not: what it left behind (run_folder.py) is
told of. Pictures go beside a Markdown file, and into an HTML page, which needs nothing else. Several runs are also
shown side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_sched.finetune.reports.compare import describe_comparison
from hf_sched.finetune.reports.page import page
from hf_sched.finetune.reports.pictures import Picture, pictures_of_comparison, pictures_of_run
from hf_sched.finetune.reports.run_folder import RunFolder, load_runs, read_evaluation
from hf_sched.finetune.reports.sections import describe_evaluation, describe_run, share

__all__ = ["describe_evaluation", "main", "write_report"]


def write_report(
    runs: list[RunFolder], results: dict[str, Any], output: Path, *, as_html: bool, only_compare: bool
) -> list[Path]:
    """Write the report; gives the files that hold it."""
    title = ", ".join(run.name for run in runs)
    lines, pictures = ["# Report", ""], list[Picture]()
    if results:
        lines += describe_evaluation(results)
    if len(runs) > 1:
        lines += describe_comparison(runs, results)
        pictures += pictures_of_comparison(runs)
    for run in runs if not only_compare else []:
        lines += describe_run(run)
        # One that is not of these runs, nor shown above.
        if run.evaluation and not results:
            lines += describe_evaluation(run.evaluation, "###")
        pictures += pictures_of_run(run)
    output.parent.mkdir(parents=True, exist_ok=True)
    written = []
    if output.suffix != ".html":
        for picture in pictures:
            (output.parent / picture.name).write_bytes(picture.png())
        output.write_text("\n".join(lines), encoding="utf-8")
        written.append(output)
    if as_html or output.suffix == ".html":
        written.append(output.with_suffix(".html"))
        written[-1].write_text(page(lines, pictures, f"Report: {title}"), encoding="utf-8")
    return written


def main() -> None:
    """Write the report that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of runs, finished or not")
    parser.add_argument("--evaluation", type=Path, help="what evaluation.py wrote; by default that of each run")
    parser.add_argument("--output", type=Path, help="a .md or .html file; by default report.md in the run's folder")
    parser.add_argument("--html", action="store_true", help="also an HTML page beside the Markdown")
    parser.add_argument("--compare", action="store_true", help="several runs side by side, and no section for each")
    args = parser.parse_args()
    try:
        if args.compare and len(args.runs) < 2:
            raise ValueError("`--compare` needs two runs or more behind `--runs`, received one")
        if args.output is None and len(args.runs) > 1:
            raise ValueError("`--output` must be given for several runs: a .md or .html file")
        output = args.output or args.runs[0] / "report.md"
        if output.suffix not in (".md", ".html"):
            raise ValueError(f"`--output` must end in .md or .html, received {str(output)!r}")
        runs = load_runs(args.runs)
        results = read_evaluation(args.evaluation) if args.evaluation else {}
        written = write_report(runs, results, output, as_html=args.html, only_compare=args.compare)
    except ValueError as error:
        parser.error(str(error))
    print(f"The report is in {' and '.join(map(str, written))}.")
    for model, result in results.items():
        print(f"  exact match of {model}: {share(result['exact_match'], result['interval'])}")


if __name__ == "__main__":
    main()
