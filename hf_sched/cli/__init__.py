"""The command `hf-sched`: see a schedule, plan a run, check a configuration, and use our names in any program.

Each command is a file of its own here and imports what it needs when it is called: `hf-sched list` must not wait for
torch.
"""

from __future__ import annotations

import sys

import typer

from hf_sched.cli import run
from hf_sched.cli.list import list_schedules

app = typer.Typer(
    name="hf-sched",
    help="Learning-rate schedules for Hugging Face training: see them before the run, prove them afterwards.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(list_schedules)
app.command("run", context_settings=run.CONTEXT)(run.run)


def main() -> None:
    """Run `hf-sched`; what a user got wrong ends it with one message and exit status 2."""
    try:
        app()
    except ValueError as error:
        print(f"hf-sched: {error}", file=sys.stderr)
        sys.exit(2)
