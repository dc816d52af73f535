"""`hf-sched plan`: what a run will do, before anything is loaded."""

from __future__ import annotations

from typing import Any

import click

from hf_sched.cli.output import print_json
from hf_sched.cli.training_file import read_training_file, run_options
from hf_sched.plots.console import console, waiting


@click.command("plan", short_help="Show what a run will do, before it starts.")
@click.argument("config", type=click.Path())
@run_options
@click.option("--json", is_flag=True, help="Write a JSON object for machines, with the whole curve.")
def plan_run(config: str, kind: str | None, json: bool, **about_the_run: Any) -> None:
    """Show what a run will do: steps, batches, learning rates, evaluations and checkpoints.

    CONFIG is the YAML or JSON file of its arguments. No model is loaded.
    """
    with waiting("reading the arguments and counting the data"):
        from hf_sched.plan import plan
        from hf_sched.plan.printout import print_plan

        planned = plan(read_training_file(config, kind), **about_the_run)
    if json:
        print_json(planned.as_dict())
    else:
        print_plan(planned, console())
