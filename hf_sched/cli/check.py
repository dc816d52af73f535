"""`hf-sched check`: what is wrong with a configuration, or with the learning rates of a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_sched.cli.output import console, print_json, writing_a_picture
from hf_sched.plan.training_config import KINDS

if TYPE_CHECKING:
    from hf_sched.audit import AuditReport
    from hf_sched.check import CheckReport


@click.command("check", short_help="Find every mistake in a configuration; audit a run.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option("--kind", type=click.Choice(KINDS), help="The trainer; by default what the file says.")
@click.option("--dataset-size", type=int, metavar="N", help="Samples to train on, where they cannot be counted.")
@click.option(
    "--world-size", type=int, metavar="N", help="Processes; by default what the launch line in the file says."
)
@click.option("--allow", metavar="KEY", multiple=True, help="A key that your own script takes. May be repeated.")
@click.option("--strict", is_flag=True, help="Count warnings as errors.")
@click.option("--config", type=Path, metavar="FILE", help="Of a run: the file that says what was planned.")
@click.option("--picture", type=Path, metavar="FILE", help="Of a run: draw plan and run into a PNG or SVG file.")
@click.option("--json", is_flag=True, help="Write a JSON list, for machines: an object for each PATH.")
def check_paths(
    paths: tuple[str, ...],
    kind: str | None,
    dataset_size: int | None,
    world_size: int | None,
    allow: tuple[str, ...],
    strict: bool,
    config: Path | None,
    picture: Path | None,
    json: bool,
) -> None:
    """Find every mistake in a configuration at once, and say what to write instead; of a run, audit its learning rates.

    PATH is a YAML or JSON file of training arguments, or the folder of a run. Exit status: 0 no errors, 1 errors, 2
    something cannot be read.
    """
    reports: list[Any] = [
        _audit(Path(path), config) if Path(path).is_dir() else _check(path, kind, dataset_size, world_size, allow)
        for path in paths
    ]
    if json:
        print_json([{"path": path, **report.as_dict()} for path, report in zip(paths, reports, strict=True)])
    for path, report in zip(paths, reports, strict=True):
        audits = hasattr(report, "comparisons")
        if not json and audits:
            click.echo("\n".join(report.lines))
        elif not json:
            _print_check(path, report)
        if audits and picture:
            _draw(report, picture)
    if any(not report.ok or (strict and report.findings) for report in reports):
        sys.exit(1)


def _check(
    path: str, kind: str | None, dataset_size: int | None, world_size: int | None, allow: tuple[str, ...]
) -> CheckReport:
    from hf_sched.check import check
    from hf_sched.plan.training_config import TrainingConfig

    config = TrainingConfig.read(path, kind)
    return check(config, dataset_size=dataset_size, world_size=world_size, allow=allow)


def _audit(folder: Path, config: Path | None) -> AuditReport:
    from hf_sched.audit import audit

    return audit(folder, config)


def _draw(report: AuditReport, picture: Path) -> None:
    with writing_a_picture("--picture", picture):
        report.picture(picture)


def _print_check(path: str, report: CheckReport) -> None:
    """A line a finding, in columns; on a terminal the last one is folded."""
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
            Text(finding.key, "bold"),
            Text(finding.message),
        )
    if report.findings:
        out.print(table)
    for note in report.not_judged:
        out.print(Text(f"{path}: not judged: {note}"))
    errors = len(report.errors)
    counts = f"{_count(errors, 'error')}, {_count(len(report.findings) - errors, 'warning')}"
    out.print(Text(f"{path}: {counts}, as {report.kind}"))


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
