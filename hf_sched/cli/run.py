"""`hf-sched run`: any command, with our schedules known in every Python process under it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

# What stands behind the command is the command's own, whatever it looks like.
CONTEXT = {"allow_interspersed_args": False}


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="As without `hf-sched run`, with its arguments.")
    ],
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="A module, or Python file, that registers schedules of your own; may be given several times.",
        ),
    ] = None,
) -> None:
    """Run any command so that every Python process under it knows our schedules.

    hf-sched run trl sft --lr_scheduler_type cosine_floor ...
    """
    from hf_sched.run import NotStarted, start

    try:
        start(command, modules or [])
    except NotStarted as error:
        print(f"hf-sched: {error}", file=sys.stderr)
        raise typer.Exit(error.status) from None
