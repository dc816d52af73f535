"""The command `hf-sched`: see a schedule, plan a run, check a configuration, and use our names in any program.

Each command has its own file here and imports what it needs when it is called: `hf-sched list` must not wait for
torch. Click, not typer, reads the command line, since typer takes 0.1 s to import.
"""

from __future__ import annotations

import importlib
import sys

import click

from hf_sched._version import __version__
from hf_sched.cli.check import check_paths
from hf_sched.cli.cooldown import cooldown
from hf_sched.cli.design import design
from hf_sched.cli.evaluate import evaluate_models
from hf_sched.cli.finetune import dpo, grpo, sft
from hf_sched.cli.init import write_starter
from hf_sched.cli.list import list_schedules
from hf_sched.cli.memory import estimate_memory
from hf_sched.cli.merge import merge_adapter
from hf_sched.cli.plan import plan_run
from hf_sched.cli.plot import plot
from hf_sched.cli.recommend import recommend_schedule
from hf_sched.cli.report import report_runs
from hf_sched.cli.run import run
from hf_sched.cli.show import show
from hf_sched.cli.sweep import find_peak
from hf_sched.plots.console import wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--import", "modules", metavar="MODULE", multiple=True, help="A module that registers schedules.")
@click.version_option(__version__)
def app(modules: tuple[str, ...]) -> None:
    """Learning-rate schedules for Hugging Face training: see them before the run, prove them afterwards."""
    sys.path.insert(0, "")
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"`--import` must be a module that can be imported here, received {module!r}: {error}"
            ) from None


for command in (
    *(list_schedules, show, recommend_schedule, plot, design, plan_run, check_paths),
    *(write_starter, find_peak, sft, grpo, dpo, estimate_memory, merge_adapter),
    *(evaluate_models, report_runs, cooldown, run),
):
    app.add_command(command)


def main() -> None:
    """Run `hf-sched`; what a user got wrong ends it with one message and exit status 2."""
    try:
        app(prog_name="hf-sched")
    except (ValueError, OSError) as error:
        print(wrapped(f"hf-sched: {error}", sys.stderr), file=sys.stderr)
        sys.exit(2)
