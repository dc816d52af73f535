"""`hf-sched run`: run any command with the schedules known in every Python process under it."""

from __future__ import annotations

import sys

import click


# Everything after the command's name belongs to the command, and a first `-m` to Python.
@click.command(
    "run",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    short_help="Run a command that uses the schedules.",
)
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--import", "modules", metavar="MODULE", multiple=True, help="A module or file that registers schedules.")
def run(command: tuple[str, ...], modules: tuple[str, ...]) -> None:
    """Run a command with the schedules known in every Python process under it.

    hf-sched run trl sft --lr_scheduler_type cosine_floor ...

    `-m MODULE ...` and `SCRIPT.py ...` run in the Python of hf-sched, so launchers that start modules can use it:

    torchrun --nproc_per_node 2 -m hf_sched run train.py ...
    """
    from hf_sched.integrations.launcher import start

    try:
        start(command, modules)
    except OSError as error:
        print(f"hf-sched: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126)  # as a shell
