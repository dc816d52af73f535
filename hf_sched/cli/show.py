"""`hf-sched show`: the reference of one schedule."""

from __future__ import annotations

import dataclasses

import click
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from hf_sched.cli.completion import complete_schedule
from hf_sched.cli.output import columns
from hf_sched.plots.console import console
from hf_sched.plots.terminal import draw
from hf_sched.reference import examples
from hf_sched.reference.description import Reference, describe
from hf_sched.reference.named_schedule import NamedSchedule


@click.command(short_help="Show the reference of a schedule.")
@click.argument("schedule", shell_complete=complete_schedule)
def show(schedule: str) -> None:
    """Show a schedule: its curve, formula, arguments, source, and the YAML for it.

    SCHEDULE is a name, also with arguments: cosine_floor, or cosine_floor:floor_ratio=0.2
    """
    requested = NamedSchedule.read(schedule)
    reference = describe(requested.name)
    out = console()
    out.print(f"[bold]{reference.name}[/]  {escape(reference.summary)}\n", soft_wrap=True)
    _print_curve(out, requested, reference)
    arguments = [
        (one.name, "required" if one.required else str(one.default or "optional"), one.takes)
        for one in reference.arguments
    ]
    coming_from = [(row.library, row.there, row.here) for row in reference.coming_from]
    for title, part in (
        ("Formula", escape("\n\n".join(filter(None, (reference.formula, reference.text))))),
        ("Arguments", columns(arguments, "bold", "", "") if arguments else "none"),
        ("Source", escape(reference.source)),
        ("In YAML", escape(examples.yaml_text(reference))),
        ("Coming from", columns(coming_from, "", "", "") if coming_from else ""),
    ):
        if part:
            out.print(f"[bold]{title}[/]")
            out.print(Padding(part, (0, 0, 1, 2), expand=False))


def _print_curve(out: Console, requested: NamedSchedule, reference: Reference) -> None:
    arguments = dict(requested.arguments) or examples.kwargs(reference)
    warmup = examples.trainers_warmup(reference.name, arguments)
    drawn = dataclasses.replace(requested, arguments=arguments).curve(examples.STEPS, warmup, 1.0)
    if drawn is None:
        out.print("It follows a metric, so its curve is unknown before the run.\n")
        return
    out.print(draw({reference.name: drawn.curve}, width=min(out.width, 80)))
    given = "".join(f"{name}: {value}, " for name, value in arguments.items())
    phases = f"[dim]in phases: {escape(str(drawn.schedule))}[/]\n" if drawn.schedule else ""
    run = f"{examples.STEPS} steps, {warmup} of them warmup"
    out.print(f"[dim]share of the peak; {escape(given)}{run}[/]\n{phases}", soft_wrap=True)
