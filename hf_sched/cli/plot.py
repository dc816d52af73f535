"""`hf-sched plot`: schedules on one pair of axes, in the terminal or as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hf_sched.cli.output import console, writing_a_picture
from hf_sched.reference.named_schedule import LabeledCurve, NamedSchedule
from hf_sched.schedules.validation import DurationReader, Number, as_steps

STEPS = 1000


@click.command(short_help="Draw schedules over the steps of a run.")
@click.argument("schedules", metavar="SCHEDULE...", nargs=-1, required=True)
@click.option("--steps", type=int, help=f"Optimizer steps of the run; {STEPS} by default, or what a file says.")
@click.option("--warmup", default="0", metavar="STEPS|SHARE", help="Warmup (50, 5%), where none is said.")
@click.option("--lr", type=float, help="The peak learning rate; without it the curves are shares of the peak.")
@click.option("--output", "-o", type=Path, metavar="FILE", help="Write a PNG, SVG or PDF file, not to the terminal.")
@click.option("--dataset-size", type=int, help="For files: samples in the training set.")
@click.option("--num-processes", type=int, help="For files: the number of processes.")
def plot(
    schedules: Sequence[str],
    steps: int | None,
    warmup: str,
    lr: float | None,
    output: Path | None,
    dataset_size: int | None,
    num_processes: int | None,
) -> None:
    """Draw one or several schedules over the steps of a run.

    A SCHEDULE is a name (cosine_floor), a name with arguments (cosine_restarts:num_cycles=3), phases ("warmup 5% | hold
    | decay 20%"), or a configuration file, whose steps, warmup and learning rate are its own.
    """
    played = [
        _play_file(text, steps, dataset_size, num_processes) if _is_file(text) else _play(text, steps, warmup, lr)
        for text in schedules
    ]
    absolute = lr is not None or any(_is_file(text) for text in schedules)
    if absolute and lr is None and not all(_is_file(text) for text in schedules):
        raise ValueError("a file has learning rates, the others only shares of a peak: give their peak by `--lr`")
    curves = _with_labels(played)
    if output is None:
        from hf_sched.plots.terminal import draw

        out = console()
        out.print(draw(curves, width=min(out.width, 100), height=18))
        return
    with writing_a_picture("--output", output):
        from hf_sched.plots.figures import save_schedules

        ylabel = "learning rate" if absolute else "learning rate / peak"
        save_schedules(curves, [one.schedule for one in played], output, ylabel=ylabel)
    click.echo(f"wrote {output}")


def _is_file(text: str) -> bool:
    return Path(text).suffix in (".yaml", ".yml", ".json") and "|" not in text


def _play(text: str, steps: int | None, warmup: str, lr: float | None) -> LabeledCurve:
    requested = NamedSchedule.read(text)
    if requested.needs_peak and lr is None:
        raise ValueError(f"the curve of {text!r} depends on the learning rate: give it by `--lr`")
    total = STEPS if steps is None else steps
    warmup_steps = as_steps(DurationReader()("--warmup", warmup), total, None, "--warmup")
    played = requested.play(
        total, 0 if requested.brings_warmup else warmup_steps, 1.0 if lr is None else Number(0)("--lr", lr)
    )
    if played is None:
        raise ValueError(f"{requested.name} follows a metric: nobody knows its curve before the run")
    return played


def _play_file(path: str, steps: int | None, dataset_size: int | None, num_processes: int | None) -> LabeledCurve:
    from hf_sched.plan import plan
    from hf_sched.plan.training_config import TrainingConfig

    config = TrainingConfig.read(path)
    if steps is not None:
        config = TrainingConfig(config.kind, {**config.given, "max_steps": steps}, config.source)
    planned = plan(config, dataset_size=dataset_size, num_processes=num_processes)
    if planned.curve is None:
        raise ValueError(f"{path}: its schedule follows a metric: nobody knows its curve before the run")
    return LabeledCurve(Path(path).stem, planned.curve, planned.schedule)


def _with_labels(played: Sequence[LabeledCurve]) -> Mapping[str, Any]:
    """The curves by their labels; a label that comes twice is numbered."""
    curves: dict[str, Any] = {}
    for one in played:
        label, number = one.label, 2
        while label in curves:
            label, number = f"{one.label} ({number})", number + 1
        curves[label] = one.curve
    return curves
