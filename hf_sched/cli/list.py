"""`hf-sched list`: the names there are, a line each."""

from __future__ import annotations

import click

from hf_sched.cli.output import console, print_json
from hf_sched.integrations.builtin_schedules import BUILTIN
from hf_sched.reference.description import summary
from hf_sched.schedules import registry


@click.command("list", short_help="List all schedules, a line each.")
@click.option("--json", is_flag=True, help="Write a JSON list, for machines.")
def list_schedules(json: bool) -> None:
    """List all schedules, a line each: ours, your own, and transformers' own."""
    rows = [(name, _whose(name), summary(name)) for name in (*registry.available(), *BUILTIN)]
    if json:
        print_json([dict(zip(("name", "from", "summary"), row, strict=True)) for row in rows])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _whose(name: str) -> str:
    if name in BUILTIN:
        return "transformers"
    return "hf_sched" if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog" else "yours"
