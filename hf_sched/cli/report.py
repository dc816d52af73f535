"""`hf-sched report`: write a report on one or more runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hf_sched.plots.console import waiting


@click.command("report", short_help="Write a report on one or more runs.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=Path)
@click.option("--evaluation", type=Path, metavar="FILE", help="Of `hf-sched evaluate`; by default each run's own.")
@click.option("--output", type=Path, metavar="FILE", help="A .md or .html file; by default report.md in the first run.")
@click.option("--html", is_flag=True, help="Also write an HTML page beside the Markdown.")
def report_runs(runs: tuple[Path, ...], **options: Any) -> None:
    """Report planned and actual learning rates, loss, reward, evaluation and provenance.

    A RUN is the `output_dir` of a Trainer, finished or interrupted, started by a recipe or not. Pictures are written
    beside a Markdown file and embedded into an HTML page. Several runs are also compared side by side.

    \b
    hf-sched report runs/sft --html
    hf-sched report runs/sft runs/sft_lower_rate --output comparison.html
    """
    with waiting("reading the runs"):
        from hf_sched.finetune.evaluation.metrics import headline
        from hf_sched.finetune.reports.report import report

        written, results = report(list(runs), **options)
    click.echo(f"The report is in {' and '.join(map(str, written))}.")
    for model, result in results.items():
        label, figure = headline(result)
        click.echo(f"  {label} of {model}: {figure}")
