"""`hf-sched run`: any command, with our schedules known in every Python process under it."""

from __future__ import annotations

import sys

import click


# What stands behind the command is the command's own, whatever it looks like.
@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command with our schedules known in it.",
)
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--import",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="A module or file with schedules of your own.",
)
def run(command: tuple[str, ...], modules: tuple[str, ...]) -> None:
    """Run any command so that every Python process under it knows our schedules.

    hf-sched run trl sft --lr_scheduler_type cosine_floor ...
    """
    from hf_sched.integrations.launcher import NotStarted, start

    try:
        start(command, modules)
    except NotStarted as error:
        print(f"hf-sched: {error}", file=sys.stderr)
        sys.exit(error.status)
