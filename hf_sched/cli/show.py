"""`hf-sched show`: all there is to say about one schedule."""

from __future__ import annotations

import dataclasses

import click
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from hf_sched.cli.output import console, print_json
from hf_sched.plots.terminal import draw
from hf_sched.reference import examples
from hf_sched.reference.description import Reference, describe
from hf_sched.reference.named_schedule import NamedSchedule


@click.command(short_help="Show all there is to say of a schedule.")
@click.argument("schedule")
@click.option("--steps", default=examples.STEPS, show_default=True, help="Optimizer steps of the run that is drawn.")
@click.option("--warmup", type=int, help="Optimizer steps of warmup; by default 5% of the run.")
@click.option("--json", is_flag=True, help="Write a JSON object, for machines.")
def show(schedule: str, steps: int, warmup: int | None, json: bool) -> None:
    """Show a schedule: its curve, formula, arguments, source, and what to write for it.

    SCHEDULE is a name, also with arguments: cosine_floor, or cosine_floor:floor_ratio=0.2
    """
    requested = NamedSchedule.read(schedule)
    of = describe(requested.name)
    if json:
        print_json(dataclasses.asdict(of))
        return
    out = console()
    out.print(f"[bold]{of.name}[/]  {escape(of.summary)}\n", soft_wrap=True)
    _print_curve(out, requested, of, steps, warmup)
    for title, text in (("Formula", of.formula), ("", of.text), ("Arguments", _arguments(of)), ("Source", of.source)):
        if text:
            _print_part(out, title, text)
    _print_part(out, "In YAML", examples.yaml_text(of))
    if of.coming_from:
        _print_part(out, "Coming from", _coming_from(of))


def _print_curve(out: Console, requested: NamedSchedule, of: Reference, steps: int, warmup: int | None) -> None:
    arguments = dict(requested.arguments) or examples.kwargs(of)
    if warmup is None:
        warmup = examples.trainers_warmup(of.name, arguments, steps)
    played = dataclasses.replace(requested, arguments=arguments).play(steps, warmup, 1.0)
    if played is None:
        out.print("It follows a metric: nobody knows its curve before the run.\n")
        return
    out.print(draw({of.name: played.curve}, width=min(out.width, 80)))
    out.print(
        f"[dim]share of the peak; {escape(_plainly(arguments))}{steps} steps, {warmup} of them warmup[/]\n"
        + (f"[dim]in phases: {escape(str(played.schedule))}[/]\n" if played.schedule else ""),
        soft_wrap=True,
    )


def _plainly(arguments: dict[str, object]) -> str:
    return "".join(f"{name}: {value}, " for name, value in arguments.items())


def _print_part(out: Console, title: str, part: str | Table) -> None:
    if title:
        out.print(f"[bold]{title}[/]")
    out.print(Padding(escape(part) if isinstance(part, str) else part, (0, 0, 1, 2), expand=False))


def _arguments(of: Reference) -> str | Table:
    if not of.arguments:
        return "none"
    table = _columns(3)
    for argument in of.arguments:
        default = "required" if argument.required else "optional" if argument.default is None else f"{argument.default}"
        table.add_row(f"[bold]{argument.name}[/]", escape(default), escape(argument.takes))
    return table


def _coming_from(of: Reference) -> Table:
    table = _columns(3)
    for row in of.coming_from:
        table.add_row(row.library, escape(row.there), escape(row.here))
    return table


def _columns(number: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(number):
        table.add_column(overflow="fold")
    return table
