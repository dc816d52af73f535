"""`hf-sched plan`: what a recipe will do, before anything is loaded."""

from __future__ import annotations

import click

from hf_sched.cli.output import console, print_json
from hf_sched.plan import plan
from hf_sched.plan.printout import print_plan
from hf_sched.plan.training_config import KINDS, RunConfig


@click.command("plan", short_help="Say what a run will do, before it runs.")
@click.argument("config")
@click.option("--dataset-size", type=int, metavar="N", help="Samples to train on, where they cannot be counted.")
@click.option("--world-size", type=int, metavar="N", help="Processes; by default what the launch line in CONFIG says.")
@click.option("--kind", type=click.Choice(KINDS), help="The trainer; by default what CONFIG says.")
@click.option("--json", is_flag=True, help="Write a JSON object, for machines, with the whole curve.")
def plan_run(config: str, dataset_size: int | None, world_size: int | None, kind: str | None, json: bool) -> None:
    """Say what a run will do: steps, batches, learning rates, evaluations, checkpoints.

    CONFIG is the YAML or JSON file of its arguments. No model is loaded.
    """
    planned = plan(RunConfig.read(config, kind), dataset_size=dataset_size, world_size=world_size)
    if json:
        print_json(planned.as_dict())
        return
    print_plan(planned, console())
