"""`hf-sched show`: the reference of one schedule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import click
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from hf_sched.cli.output import console, print_json
from hf_sched.plots.terminal import draw
from hf_sched.reference import examples
from hf_sched.reference.description import Argument, Reference, describe
from hf_sched.reference.named_schedule import NamedSchedule


@click.command(short_help="Show the reference of a schedule.")
@click.argument("schedule")
@click.option("--steps", default=examples.STEPS, show_default=True, help="Optimizer steps of the run that is drawn.")
@click.option("--warmup", type=int, help="Optimizer steps of warmup; by default 5% of the run.")
@click.option("--json", is_flag=True, help="Write a JSON object, for programs.")
def show(schedule: str, steps: int, warmup: int | None, json: bool) -> None:
    """Show a schedule: its curve, formula, arguments, source, and the YAML for it.

    SCHEDULE is a name, also with arguments: cosine_floor, or cosine_floor:floor_ratio=0.2
    """
    requested = NamedSchedule.read(schedule)
    reference = describe(requested.name)
    if json:
        print_json(dataclasses.asdict(reference))
        return
    out = console()
    out.print(f"[bold]{reference.name}[/]  {escape(reference.summary)}\n", soft_wrap=True)
    _print_curve(out, requested, reference, steps, warmup)
    coming_from = [(row.library, escape(row.there), escape(row.here)) for row in reference.coming_from]
    for title, part in (
        ("Formula", reference.formula),
        ("", reference.text),
        ("Arguments", _columns(map(_argument_row, reference.arguments)) if reference.arguments else "none"),
        ("Source", reference.source),
        ("In YAML", examples.yaml_text(reference)),
        ("Coming from", _columns(coming_from) if coming_from else ""),
    ):
        if part and title:
            out.print(f"[bold]{title}[/]")
        if part:
            out.print(Padding(escape(part) if isinstance(part, str) else part, (0, 0, 1, 2), expand=False))


def _print_curve(out: Console, requested: NamedSchedule, reference: Reference, steps: int, warmup: int | None) -> None:
    arguments = dict(requested.arguments) or examples.kwargs(reference)
    if warmup is None:
        warmup = examples.trainers_warmup(reference.name, arguments, steps)
    drawn = dataclasses.replace(requested, arguments=arguments).curve(steps, warmup, 1.0)
    if drawn is None:
        out.print("It follows a metric, so its curve is unknown before the run.\n")
        return
    out.print(draw({reference.name: drawn.curve}, width=min(out.width, 80)))
    given = "".join(f"{name}: {value}, " for name, value in arguments.items())
    phases = f"[dim]in phases: {escape(str(drawn.schedule))}[/]\n" if drawn.schedule else ""
    run = f"{steps} steps, {warmup} of them warmup"
    out.print(f"[dim]share of the peak; {escape(given)}{run}[/]\n{phases}", soft_wrap=True)


def _argument_row(argument: Argument) -> tuple[str, str, str]:
    default = "required" if argument.required else "optional" if argument.default is None else f"{argument.default}"
    return f"[bold]{argument.name}[/]", escape(default), escape(argument.takes)


def _columns(rows: Iterable[tuple[str, str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
