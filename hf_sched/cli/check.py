"""`hf-sched check`: what is wrong with a configuration, or with the learning rates of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hf_sched.check import CheckReport


def check_paths(
    paths: Annotated[list[Path], typer.Argument(help="YAML or JSON files of training arguments, or folders of runs.")],
    kind: Annotated[
        str | None, typer.Option(help="sft, grpo, dpo, kto, reward, rloo or trainer; by default as the file says.")
    ] = None,
    dataset_size: Annotated[
        int | None, typer.Option(help="Rows of the training data, where the length of the run follows from it.")
    ] = None,
    world_size: Annotated[
        int | None, typer.Option(help="Processes; by default those of the launch line in the file.")
    ] = None,
    allow: Annotated[list[str] | None, typer.Option(help="A key that your own script takes; may be repeated.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines: a JSON list, an object a path.")] = False,
) -> None:
    """Every mistake in a configuration at once, with what to write instead; of a run's folder, the audit.

    Exit status 0: no errors, 1: errors, 2: something could not be read.
    """
    reports: list[Any] = []
    for path in paths:
        if path.is_dir():
            from hf_sched.audit import audit  # type: ignore[import-not-found,unused-ignore]

            reports.append(audit(path))
        else:
            reports.append(_check(path, kind, dataset_size, world_size, allow or []))
    if json:
        _print_json(paths, reports)
    else:
        for path, report in zip(paths, reports, strict=True):
            _print(path, report)
    if any(not report.ok or (strict and report.findings) for report in reports):
        raise typer.Exit(1)


def _check(
    path: Path, kind: str | None, dataset_size: int | None, world_size: int | None, allow: list[str]
) -> CheckReport:
    from hf_sched.check import check
    from hf_sched.run_config import RunConfig

    config = RunConfig.read(path, kind)
    return check(config, dataset_size=dataset_size, world_size=world_size, allow=allow)


def _print_json(paths: list[Path], reports: list[Any]) -> None:
    import dataclasses
    import json

    objects = [
        {"path": str(path), **(report.as_dict() if hasattr(report, "as_dict") else dataclasses.asdict(report))}
        for path, report in zip(paths, reports, strict=True)
    ]
    print(json.dumps(objects, indent=2, default=str))


def _print(path: Path, report: Any) -> None:
    if hasattr(report, "not_judged"):
        _print_check(path, report)
    else:
        print(f"{path}: {'no deviation found' if report.ok else 'deviates'}")
        for finding in report.findings:
            print(f"  {finding}")


def _print_check(path: Path, report: CheckReport) -> None:
    """A line a finding, in columns; on a terminal the last column is folded, in a pipe it is not."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    rows = [
        (f"{path}:{finding.line}" if finding.line else str(path), finding.severity, finding.key, finding.message)
        for finding in report.findings
    ]
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for width in (None, None, 32):
            table.add_column(overflow="fold", max_width=width)
        table.add_column(overflow="fold", ratio=1)
        for place, severity, key, message in rows:
            style = "bold red" if severity == "error" else "yellow"
            table.add_row(Text(place, "dim"), Text(severity, style), Text(key, "bold"), Text(message))
        console.print(table)
    else:
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        for row in rows:
            print(*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3], sep="  ")
    for note in report.not_judged:
        console.print(Text(f"{path}: not judged: {note}"), soft_wrap=not console.is_terminal)
    errors = len(report.errors)
    warnings = len(report.findings) - errors
    console.print(
        Text(f"{path}: {_count(errors, 'error')}, {_count(warnings, 'warning')}, as {report.kind}"), soft_wrap=True
    )


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
