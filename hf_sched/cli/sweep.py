"""`hf-sched sweep`: find the peak learning rate by short runs of a recipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hf_sched.cli.finetune import KINDS, launch_command
from hf_sched.cli.output import print_json
from hf_sched.cli.training_file import recipe_arguments
from hf_sched.plots.console import console, waiting
from hf_sched.schedules.validation import ArgumentError, Number, OneOf, percentage_as_fraction

if TYPE_CHECKING:
    from hf_sched.finetune.sweep.trial import Launch, Recipe
    from hf_sched.finetune.sweep.verdict import Verdict


@click.command("sweep", short_help="Find the peak by short runs of a recipe.")
@click.argument("config", type=click.Path())
@click.option("--learning-rates", required=True, metavar="LOW..HIGH|A,B,C", help="Peaks: LOW, 2 LOW, ... HIGH.")
@click.option("--seeds", default="3", show_default=True, metavar="N|A,B,C", help="Seeds, counted from the run's.")
@click.option("--budget", default="35%", show_default=True, metavar="SHARE", help="Of the steps of the full grid.")
@click.option("--set", "settings", multiple=True, metavar="NAME=A,B", help="Values of another argument.")
@click.option("--metric", metavar="NAME", help="By default eval_reward for GRPO, else eval_loss.")
@click.option("--storage", metavar="FILE|URL", help="Shared by workers; by default sweep.db in the output folder.")
@click.option("--output", type=Path, metavar="FOLDER", help="By default CONFIG's `output_dir` with _sweep appended.")
@click.option("--kind", metavar="KIND", help="sft, grpo or dpo; by default the best fit.")
@click.option("--num-processes", type=click.IntRange(1), metavar="N", help="Of each run; as in hf-sched sft.")
@click.option("--accelerate-config", type=click.Path(exists=True), metavar="FILE", help="For accelerate launch.")
@click.option("--json", is_flag=True, help="Write a JSON object for machines.")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def find_peak(
    config: str, json: bool, output: Path | None, storage: str | None, flags: tuple[str, ...], **ways: Any
) -> None:
    """Find the peak learning rate of CONFIG by short runs: successive halving over peaks, paired by seed.

    FLAGS, after `--`, are arguments of the recipe; {seed} in them becomes the seed. Start the command again to
    continue, on other GPUs or machines as well: workers with the same storage share the runs.

    \b
    hf-sched sweep my_sft.yaml --learning-rates 1e-5..1e-3
    hf-sched sweep my_sft.yaml --learning-rates 1e-4..1e-3 --set lora_r=8,16 -- --max_steps 200
    """
    from hf_sched.plan.training_config import read_arguments

    read_arguments(config)  # an unsuitable file is rejected before torch is imported
    if missing := [name for name in ("trl", "optuna") if find_spec(name) is None]:
        raise ArgumentError("sweep", rule=f"needs {' and '.join(missing)}", hint="pip install 'hf_sched[sweep]'")
    with waiting("reading the arguments"):
        from hf_sched.finetune.pipeline import configure_logging
        from hf_sched.finetune.sweep import grid, halving, verdict, worker

        peaks, settings = grid.read_peaks(ways["learning_rates"]), grid.read_settings(ways["settings"])
        points = grid.make_points(peaks, settings)
        fixed = {name: values[0] for name, values in settings.items() if name in grid.SCHEDULE}
        recipe = _read_recipe(config, flags, fixed, points, **ways)
        seeds = grid.read_seeds(ways["seeds"], int(recipe.given.get("seed", 42)))
        budget = Number(0, 1)("--budget", percentage_as_fraction(ways["budget"]))
        rungs = halving.plan_rungs(len(points), seeds, recipe.total, budget, recipe.warmup)
    configure_logging(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the training as well
    folder = output or Path(f"{recipe.given.get('output_dir', 'trainer_output')}_sweep")
    folder.mkdir(parents=True, exist_ok=True)
    place = storage or str(folder / "sweep.db")
    grid_steps, cost = len(points) * len(seeds) * recipe.total, halving.cost(rungs)
    stages = ", then ".join(f"{rung.points} x {len(rung.seeds)} for {rung.steps}" for rung in rungs)
    click.echo(
        f"hf-sched sweep: {len(points)} points; points x seeds for steps: {stages}; {cost} optimizer steps, "
        f"{cost / grid_steps:.0%} of the full grid's",
        err=True,
    )
    with worker.explain_storage(place):
        joined = worker.Worker.join(
            worker.open_storage(place), recipe, points=points, rungs=rungs, folder=folder.resolve()
        )
        results = joined.run()
        errors = joined.errors()
    found = verdict.judge(points, rungs, results, recipe.metric, higher=recipe.higher)
    joined.delete_checkpoints()
    verdict.draw(found, rungs, results, folder / "sweep.png")
    if found.best is not None:
        comment = f"{found.sentences()[0]} hf-sched sweep {config} --learning-rates {ways['learning_rates']}"
        verdict.write_best(found.best, recipe.given, fixed, folder / "best.yaml", comment)
    answer = {**found.as_dict(), "steps": cost, "steps_here": joined.trained, "grid_steps": grid_steps}
    answer["errors"] = {f"{unit.point}, seed {unit.seed}, {unit.steps} steps": text for unit, text in errors.items()}
    from hf_sched._run_files import write_json

    write_json(folder / "sweep.json", answer)
    if json:
        print_json(answer)
    else:
        _print(found, answer, recipe.kind, folder)
    if found.best is None:
        sys.exit(1)


def _read_recipe(
    config: str,
    flags: tuple[str, ...],
    fixed: dict[str, Any],
    points: list[Any],
    *,
    kind: str | None,
    metric: str | None,
    num_processes: int | None,
    accelerate_config: str | None,
    **_: Any,
) -> Recipe:
    """Read and check the configuration with every combination of the swept arguments."""
    from hf_sched.finetune.config import check_arguments, given_arguments
    from hf_sched.finetune.sweep.trial import Recipe
    from hf_sched.plan import plan
    from hf_sched.plan.training_config import TrainingConfig

    words = ["--config", config, *flags]
    given = given_arguments(words)
    kind = OneOf(tuple(KINDS))("--kind", kind or TrainingConfig.read(config, None, recipe_arguments()).kind)
    for others in dict.fromkeys(point.others for point in points):
        swept = [word for name, value in {**fixed, **dict(others)}.items() for word in (f"--{name}", str(value))]
        check_arguments(kind, [*words, *swept])
    arguments = {name: value for name, value in given.items() if name != "config"} | dict(points[0].others)
    planned = plan(
        TrainingConfig(kind, {**arguments, **fixed}, config, extra=recipe_arguments()),
        num_processes=num_processes,
        accelerate_config=accelerate_config,
    )
    first = planned.schedule.segments[0] if planned.schedule else None
    own_warmup = first.steps if first is not None and first.kind == "warmup" else 0
    wanted = metric or given.get("metric_for_best_model") or ("reward" if kind == "grpo" else "loss")
    name = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
    return Recipe(
        kind=kind,
        given=arguments,
        metric=name,
        higher=bool(given.get("greater_is_better", "loss" not in name)),
        total=planned.num_training_steps,
        warmup=max(planned.num_warmup_steps, own_warmup),
        processes=planned.world_size.processes,
        launch=_launcher(kind, arguments, num_processes, accelerate_config),
    )


def _launcher(kind: str, given: dict[str, Any], num_processes: int | None, accelerate_config: str | None) -> Launch:
    """Return what starts the recipe: Python itself if a single process is enough, else `accelerate launch`."""
    import torch

    from hf_sched.finetune.launch import NUM_PROCESSES

    has_gpu = torch.accelerator.is_available() and not given.get("use_cpu")
    is_single = (
        not accelerate_config and (num_processes or 1) == 1 and (torch.accelerator.device_count() < 2 or not has_gpu)
    )
    environment = {**os.environ, **({NUM_PROCESSES: str(num_processes)} if num_processes else {})}

    def launch(config: Path, log: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", f"hf_sched.finetune.{kind}", "--config", str(config)]
        if not is_single:
            words = launch_command(kind, words[3:], num_processes, accelerate_config, has_gpu=has_gpu)
        elif not has_gpu:
            words += ["--use_cpu", "true"]
        with log.open("wb") as out:
            return subprocess.Popen(words, stdout=out, stderr=out, env=environment, start_new_session=True)

    return launch


def _print(found: Verdict, answer: dict[str, Any], kind: str, folder: Path) -> None:
    """Print the table of the points and the verdict."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("learning_rate", "steps", "seeds", found.metric, "difference to the best (95%)", "standing"):
        table.add_column(name)
    for row in found.rows:
        interval = f" ({row.interval[0]:+.4g} to {row.interval[1]:+.4g})" if row.interval else ""
        difference = "" if row.difference is None else f"{row.difference:+.4g}{interval}"
        cells = (str(row.point), f"{row.steps}", f"{len(row.values)}", f"{row.mean:.4g}", difference, row.standing)
        table.add_row(*cells)
    console().print(table)
    click.echo("\n".join(["", *found.sentences()]))
    for at, error in answer["errors"].items():
        click.echo(f"Failed: {at}: {error}")
    click.echo(f"{answer['steps']} optimizer steps, {answer['steps_here']} of them trained by this worker now.")
    if found.best is not None:
        click.echo(f"Written: {folder}/sweep.png, sweep.json; train with hf-sched {kind} --config {folder}/best.yaml")
