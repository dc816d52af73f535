"""`hf-sched check`: the mistakes of a configuration, or an audit of the learning rates of a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_sched.cli.output import console, print_json, writing_a_picture
from hf_sched.cli.training_file import read_training_file, run_options

if TYPE_CHECKING:
    from hf_sched.check import CheckReport


@click.command("check", short_help="Find every mistake in a configuration; audit a run.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@run_options
@click.option("--allow", metavar="KEY", multiple=True, help="A key that your own script accepts. May be repeated.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("--config", type=Path, metavar="FILE", help="Of a run: the file with the planned schedule.")
@click.option("--picture", type=Path, metavar="FILE", help="Of a run: draw plan and run into a PNG or SVG file.")
@click.option("--json", is_flag=True, help="Write a JSON list for machines, with an object for each PATH.")
def check_paths(
    paths: tuple[str, ...],
    strict: bool,
    config: Path | None,
    picture: Path | None,
    json: bool,
    kind: str | None,
    **about_the_run: Any,
) -> None:
    """Find every mistake in a configuration at once, with its remedy; of a run, audit its learning rates.

    PATH is a YAML or JSON file of training arguments, or the folder of a run. Exit status: 0 without errors, 1 with
    errors, 2 if something cannot be read.
    """
    from hf_sched.audit import audit
    from hf_sched.check import check

    reports: list[Any] = []
    for path in paths:
        if Path(path).is_dir():
            reports.append(audit(Path(path), config))
            if picture:
                with writing_a_picture("--picture", picture):
                    reports[-1].picture(picture)
        else:
            reports.append(check(read_training_file(path, kind), **about_the_run))
    if json:
        print_json([{"path": path, **report.as_dict()} for path, report in zip(paths, reports, strict=True)])
    else:
        for path, report in zip(paths, reports, strict=True):
            if Path(path).is_dir():
                click.echo("\n".join(report.lines))
            else:
                _print_check(path, report)
    if any(not report.ok or (strict and report.findings) for report in reports):
        sys.exit(1)


def _print_check(path: str, report: CheckReport) -> None:
    """Print one line per finding, in columns. A terminal folds the last column."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold", no_wrap=not out.is_terminal)
    table.add_column(overflow="fold", ratio=1 if out.is_terminal else None)
    for finding in report.findings:
        table.add_row(
            Text(f"{path}:{finding.line}" if finding.line else path, "dim"),
            Text(finding.severity, "bold red" if finding.severity == "error" else "yellow"),
            Text(finding.key or "-", "bold"),
            Text(finding.message),
        )
    if report.findings:
        out.print(table)
    for note in report.not_judged:
        out.print(Text(f"{path}: not judged: {note}"))
    if report.assumed:
        out.print(Text(f"{path}: assumed: {', '.join(report.assumed)}"))
    errors = len(report.errors)
    counts = f"{_count(errors, 'error')}, {_count(len(report.findings) - errors, 'warning')}"
    out.print(Text(f"{path}: {counts}, as {report.kind}"))


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
