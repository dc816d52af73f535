"""`hf-sched cooldown`: tell a running run to cool down now and end."""

from __future__ import annotations

from pathlib import Path

import click

from hf_sched.cli.output import print_json


@click.command("cooldown", short_help="Tell a running run to cool down now and end.")
@click.argument("run", metavar="RUN", type=Path)
@click.option(
    "--duration", default="20%", metavar="N|SHARE", show_default=True, help="Steps, or a share of the run it then is."
)
@click.option("--shape", default="1-sqrt", show_default=True, help="How the learning rate falls, as in a decay.")
@click.option("--floor-ratio", type=float, metavar="SHARE", help="Where it ends, of the peak; by default the floor.")
@click.option("--min-lr", type=float, metavar="RATE", help="The same as a learning rate.")
@click.option("--json", is_flag=True, help="Write a JSON object, for machines.")
def cooldown(run: Path, duration: str, shape: str, floor_ratio: float | None, min_lr: float | None, json: bool) -> None:
    """Tell a running run to cool down now and end; it is not stopped.

    RUN is its `output_dir`. It must be at a constant rate under a schedule of hf_sched (wsd, phases in a hold). From
    its next log line on the learning rate falls to the floor, and the run ends there, as one that is through.
    """
    from hf_sched._run_files import COOLDOWN_REJECTED
    from hf_sched.callbacks.cooldown import Request, ask

    given = {"duration": duration, "shape": shape, "floor_ratio": floor_ratio, "min_lr": min_lr}
    told = ask(run, Request.read(given))
    if json:
        print_json(told)
        return
    rates = ", ".join(f"{rate:.6g}" for rate in sorted(set(told["rates"])))
    every = "step" if told["every"] == 1 else f"{told['every']} steps"
    click.echo(
        f"{run} is told. It looks after every {every}, next after step {told['step']} at the earliest. "
        f"From there it cools\ndown over {told['steps']} steps to a learning rate of {rates}, and ends after step "
        f"{told['end']}, not {told['planned_end']}:\n    {told['schedule']}\n"
        f"Should it be unable to, it goes on as planned, and {COOLDOWN_REJECTED} there says why."
    )
