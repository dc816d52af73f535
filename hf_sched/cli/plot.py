"""`hf-sched plot`: schedules on one pair of axes, in the terminal or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_sched.cli.completion import complete_schedule
from hf_sched.plots.console import console, has_colors
from hf_sched.reference.named_schedule import LabeledCurve, NamedSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.validation import ArgumentError, Number, as_steps

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from hf_sched.plan import Plan
    from hf_sched.schedules.schedule import Schedule

    Array = npt.NDArray[np.float64]

STEPS = 1000


@click.command(short_help="Plot schedules over the steps of a run.")
@click.argument("schedules", metavar="SCHEDULE...", nargs=-1, required=True, shell_complete=complete_schedule)
@click.option("--steps", type=int, help=f"Optimizer steps of the run; by default {STEPS}, or those of a file.")
@click.option("--warmup", default="0", metavar="STEPS|SHARE", help="Warmup (50, 5%) of schedules without their own.")
@click.option("--lr", type=float, help="The peak learning rate; without it the curves are shares of the peak.")
@click.option("--output", "-o", type=Path, metavar="FILE", help="Write a PNG, SVG or PDF file, not to the terminal.")
def plot(schedules: Sequence[str], steps: int | None, warmup: str, lr: float | None, output: Path | None) -> None:
    """Plot one or several schedules over the steps of a run.

    A SCHEDULE is a name (cosine_floor), a name with arguments (cosine_restarts:num_cycles=3), phases ("warmup 5% | hold
    | decay 20%"), or a configuration file with its own steps, warmup and learning rate. A file also shows the learning
    rates of its `lr_groups`, and its `schedules` of other hyperparameters.
    """
    files = [Path(text).suffix in (".yaml", ".yml", ".json") and "|" not in text for text in schedules]
    if lr is None and any(files) and not all(files):
        raise ArgumentError("--lr", rule="is required to plot a file, which has learning rates, beside names")
    rates = "learning rate / peak" if lr is None and not any(files) else "learning rate"
    panels: dict[str, dict[str, Array]] = {rates: {}}
    drawn: list[Schedule | None] = []
    for text, is_file in zip(schedules, files, strict=True):
        planned = _plan_of_file(text, steps) if is_file else None
        found = planned or _curve(text, steps, warmup, lr)
        if found is None or found.curve is None:
            allowed, hint = "one whose curve is known before the run", "this one follows a metric"
            raise ArgumentError("schedule", allowed, text, hint)
        panels[rates][text] = found.curve
        drawn.append(found.schedule)
        if planned:
            _, *groups = planned.curves.items()
            panels[rates] |= {f"{text}: {pattern}": curve for pattern, curve in groups}
            for name, values in planned.hyperparameter_curves.items():
                panels.setdefault(name, {})[text] = values
    if output is None:
        from hf_sched.plots.terminal import draw

        out = console()
        for title, curves in panels.items():
            if title != rates:
                out.print(f"\n{title}", markup=False)
            out.print(draw(curves, width=min(out.width, 100), height=18, lettered=not has_colors(out)))
        return
    try:
        from hf_sched.plots.figures import save_schedules

        save_schedules(panels, drawn, output)
    except ModuleNotFoundError as error:
        hint = "pip install 'hf_sched[plot]', or omit the option"
        raise ArgumentError("--output", rule=f"needs {error.name}", hint=hint) from None
    click.echo(f"wrote {output}")


def _curve(text: str, steps: int | None, warmup: str, lr: float | None) -> LabeledCurve | None:
    requested = NamedSchedule.read(text)
    if requested.needs_peak and lr is None:
        raise ArgumentError("--lr", rule=f"is required, because the curve of {text!r} depends on the learning rate")
    total = STEPS if steps is None else steps
    length = registry.length_of(requested.name, requested.arguments, total)
    warmup_steps = as_steps(warmup, length, name="--warmup")
    peak = 1.0 if lr is None else Number(0)("--lr", lr)
    return requested.curve(total, 0 if requested.has_own_warmup else warmup_steps, peak)


def _plan_of_file(path: str, steps: int | None) -> Plan:
    from hf_sched.plan import plan
    from hf_sched.plan.training_config import TrainingConfig

    config = TrainingConfig.read(path)
    if steps is not None:
        config = TrainingConfig(config.kind, {**config.given, "max_steps": steps}, config.source)
    return plan(config)
