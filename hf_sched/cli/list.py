"""`hf-sched list`: all schedules, one per line."""

from __future__ import annotations

import click

from hf_sched.cli.output import columns
from hf_sched.plots.console import console
from hf_sched.reference.description import summary
from hf_sched.schedules import registry


@click.command("list", short_help="List all schedules.")
def list_schedules() -> None:
    """List all schedules, one per line: those of hf_sched, your own, and those of transformers."""
    rows = [(name, _source(name), summary(name)) for name in (*registry.available(), *registry.BUILTIN_NAMES)]
    console().print(columns(rows, "bold", "dim", ""))


def _source(name: str) -> str:
    if name in registry.BUILTIN_NAMES:
        return "transformers"
    return "hf_sched" if registry.entry(name).build_phases.__module__ == "hf_sched.schedules.catalog" else "yours"
