"""`hf-sched list`: all schedules, one per line."""

from __future__ import annotations

import click

from hf_sched.cli.output import console, print_json
from hf_sched.reference.description import summary
from hf_sched.schedules import registry


@click.command("list", short_help="List all schedules.")
@click.option("--json", is_flag=True, help="Write a JSON list, for programs.")
def list_schedules(json: bool) -> None:
    """List all schedules, one per line: those of hf_sched, your own, and those of transformers."""
    rows = [(name, _source(name), summary(name)) for name in (*registry.available(), *registry.BUILTIN_NAMES)]
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


def _source(name: str) -> str:
    if name in registry.BUILTIN_NAMES:
        return "transformers"
    return "hf_sched" if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog" else "yours"
