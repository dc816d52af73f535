"""`hf-sched cooldown`: request a running training to cool down and end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hf_sched.cli.output import print_json


@click.command("cooldown", short_help="Request a running training to cool down and end.")
@click.argument("run", metavar="RUN", type=Path)
@click.option("--duration", default="20%", metavar="N|SHARE", help="Steps, or a share of the shortened run: 20%.")
@click.option("--shape", default="1-sqrt", show_default=True, help="Shape of the decay.")
@click.option("--floor-ratio", type=float, help="End of the decay, as a share of the peak; by default the floor.")
@click.option("--min-lr", type=float, metavar="RATE", help="End of the decay, as a learning rate.")
@click.option("--json", is_flag=True, help="Print a JSON object.")
def cooldown(run: Path, json: bool, **decay: Any) -> None:
    """Request a running training to cool down now and end.

    RUN is its `output_dir`. The training must be at a constant learning rate under a schedule of hf_sched (`wsd`, or
    `phases` in a hold). At its next logging step it starts to decay to the floor, and then finishes normally.
    """
    from hf_sched._run_files import COOLDOWN_REJECTED
    from hf_sched.callbacks.cooldown_request import Request, send_request

    answer = send_request(run, Request.parse(decay))
    if json:
        print_json(answer)
        return
    rates = ", ".join(f"{rate:.6g}" for rate in sorted(set(answer["rates"])))
    every = "step" if answer["every"] == 1 else f"{answer['every']} steps"
    click.echo(
        f"Request sent to {run}, which reads requests every {every}, next after step {answer['step']} at the\n"
        f"earliest. It then decays over {answer['steps']} steps to a learning rate of {rates} and ends after step "
        f"{answer['end']}, not {answer['planned_end']}:\n    {answer['schedule']}\n"
        f"If it cannot, training continues on the original schedule and {COOLDOWN_REJECTED} says why."
    )
