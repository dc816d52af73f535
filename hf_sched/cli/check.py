"""`hf-sched check`: the mistakes of a configuration, or an audit of the learning rates of a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from hf_sched.cli.output import columns, print_json
from hf_sched.cli.training_file import read_training_file, recipe_checks, run_options
from hf_sched.plots.console import console, waiting, wrapped


@click.command("check", short_help="Find every mistake in a configuration; audit a run.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@run_options
@click.option("--allow", metavar="KEY", multiple=True, help="A key that your own script accepts. May be repeated.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("--config", type=Path, metavar="FILE", help="Of a run: the file with the planned schedule.")
@click.option("--json", is_flag=True, help="Write a JSON list for machines, with an object for each PATH.")
def check_paths(
    paths: tuple[str, ...], strict: bool, config: Path | None, json: bool, kind: str | None, **about_the_run: Any
) -> None:
    """Find every mistake in a configuration at once, with its remedy; of a run, audit its learning rates.

    PATH is a YAML or JSON file of training arguments, or the folder of a run. Exit status: 0 without errors, 1 with
    errors, 2 if something cannot be read.
    """
    reports: dict[str, Any] = {}
    with waiting("reading"):
        from hf_sched.audit import audit
        from hf_sched.check import check

        options = {**about_the_run, "more": recipe_checks()}
        for path in paths:
            is_run = Path(path).is_dir()
            reports[path] = audit(path, config) if is_run else check(read_training_file(path, kind), **options)
    if json:
        print_json([{"path": path, **report.as_dict()} for path, report in reports.items()])
    else:
        for path, report in reports.items():
            if Path(path).is_dir():
                click.echo(wrapped("\n".join(report.lines), sys.stdout))
            else:
                _print_check(path, report)
    if any(not report.ok or (strict and report.findings) for report in reports.values()):
        sys.exit(1)


def _print_check(path: str, report: Any) -> None:
    """Print one line per finding, in columns."""
    colors = {"error": "bold red", "warning": "yellow"}
    rows = [
        (f"{path}:{one.line or ''}", Text(one.severity, colors[one.severity]), one.key or "-", one.message)
        for one in report.findings
    ]
    if rows:
        console().print(columns(rows, "dim", "", "bold", ""))
    notes = [f"not judged: {note}" for note in report.not_judged]
    notes += [f"usual peak: {report.peak}"] if report.peak else []
    notes += [f"assumed: {', '.join(report.assumed)}"] if report.assumed else []
    errors = len(report.errors)
    notes.append(f"{report.kind}, errors: {errors}, warnings: {len(report.findings) - errors}")
    click.echo(wrapped("\n".join(f"{path}: {note}" for note in notes), sys.stdout))
