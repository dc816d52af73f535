"""Which schedule gives the best model? Train recipes with several schedules, each at several peaks and seeds.

    python -m benchmarks.learning.run all --gsm8k FOLDER        # docs/benchmarks.md again: hours on two cores
    python -m benchmarks.learning.run compare --config recipes/configs/demo_sft.yaml --output runs/learning/mine \\
        --schedules linear cosine_floor:floor_ratio=0.1 "warmup 5% | hold | decay 20% 1-sqrt" \\
        --learning_rates 1e-3 2e-3 4e-3 --flags --model_name_or_path runs/my_task-{seed}/model

Arguments after `--flags` go to the recipe; `{seed}` in them becomes the seed. Trainings run side by side, one per core.
If it is interrupted, the same command continues. `compare` writes report.md (each schedule at its best peak with its
interval, and a paired test against the first one), learning.png and runs.csv with one line per training.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common.reporting import command_line
from benchmarks.common.task import ROOT
from benchmarks.learning.report import BUDGETS, COSINE, WSD, budget_table, write, write_sweep
from benchmarks.learning.text_task import make_text_task
from benchmarks.learning.trials import Recipe, Trial, run_trials
from hf_sched.finetune.demo.sorting_task import save_data, save_model
from hf_sched.reference.named_schedule import NamedSchedule

CONFIGS = Path(__file__).parent / "configs"
SCHEDULES = (
    *("linear", "cosine", "cosine_with_min_lr:min_lr_rate=0.1", "constant_with_warmup", "linear_with_warmup"),
    *("cosine_floor:floor_ratio=0.1", "warmup_cosine", "cosine_restarts:num_cycles=3", "wsd:decay=20%"),
)
SHAPE = "1-sqrt"


def main() -> None:
    """Run what the command line requests."""
    parser = command_line(__doc__)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    shared.add_argument("--jobs", type=int, help="trainings at a time (default: one per core)")
    commands = parser.add_subparsers(dest="command", required=True)
    everything = commands.add_parser("all", parents=[shared], help="all trainings of docs/benchmarks.md")
    everything.add_argument("--gsm8k", type=Path, required=True, help="GSM8K's folder")
    everything.add_argument("--output", type=Path, default=Path("runs/learning"), help="(default: %(default)s)")
    everything.add_argument("--schedules", nargs="+", default=SCHEDULES)
    compare = commands.add_parser("compare", parents=[shared], help="schedules for a recipe")
    compare.add_argument("--config", type=Path, required=True, help="a recipe's YAML file")
    compare.add_argument("--output", type=Path, required=True)
    compare.add_argument("--schedules", nargs="+", required=True, help="the first is the baseline")
    compare.add_argument("--learning_rates", nargs="+", type=float, required=True, help="peaks for every schedule")
    compare.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="of the recipe, after all others")
    args = parser.parse_args()
    try:
        if args.command == "all":
            run_all(args)
        else:
            recipe = Recipe(args.config, args.output, args.seeds, args.flags, args.jobs)
            run_sweep(recipe, args.schedules, args.learning_rates)
    except ValueError as error:
        parser.error(str(error))
    print(f"written: {args.output}")


def run_sweep(recipe: Recipe, schedules: Sequence[str], peaks: Sequence[float]) -> None:
    """Train with each schedule at each peak and seed, and write report.md, learning.png and runs.csv.

    Raises:
        ValueError: A schedule is wrong; nothing has been trained then.
    """
    named = [NamedSchedule.read(text) for text in schedules]
    if steps := recipe.given.get("max_steps"):  # otherwise the training itself checks it
        for schedule in named:
            schedule.curve(num_training_steps=steps, num_warmup_steps=0, peak=max(peaks))
    trials = [
        Trial(f"{re.sub('[^a-z0-9_.=-]+', '_', schedule.label)}/{peak:g}/seed-{seed}", schedule, peak, seed)
        for seed in recipe.seeds
        for schedule in named
        for peak in peaks
    ]
    write_sweep(run_trials(recipe, trials), recipe.output)


def run_budgets(recipe: Recipe, peak: float, budgets: Mapping[int, int] = BUDGETS) -> None:
    """Train a model for each budget in two ways, and write report.md and runs.csv.

    One long `wsd` run holds its peak and ends in a cooldown; the models of the smaller budgets branch off its
    checkpoints (`--anneal_from`). The other way is a cosine run for each budget. `budgets` has the steps of each
    cooldown by the steps of its model; a branch point must be a multiple of the first.
    """
    steps, smallest = max(budgets), min(budgets)
    cosine = NamedSchedule.read(COSINE)
    wsd = dataclasses.replace(NamedSchedule.read(f"wsd:decay={budgets[steps]},decay_shape={SHAPE}"), label=WSD)
    length = ("--max_steps", str(steps))
    saves = ("--save_strategy", "steps", "--save_steps", str(smallest - budgets[smallest]))
    trials = []
    for seed in recipe.seeds:
        long = Trial(f"{WSD}-{steps}/seed-{seed}", wsd, peak, seed, (*length, *saves))
        trials.append(long)
        for budget, decay in budgets.items():
            flags = ("--max_steps", str(budget))
            trials.append(Trial(f"{COSINE}-{budget}/seed-{seed}", cosine, peak, seed, flags))
            if budget < steps:
                checkpoint = str(long.folder(recipe) / f"checkpoint-{budget - decay}")
                branch = ("--anneal_from", checkpoint, "--anneal_duration", str(decay), "--anneal_shape", SHAPE)
                trials.append(Trial(f"{WSD}-{budget}/seed-{seed}", wsd, peak, seed, (*length, *branch)))
    runs = run_trials(recipe, trials)
    write(runs, recipe.output, f"{recipe.metric} of {len(budgets)} budgets", budget_table(runs, budgets))


def run_all(args: argparse.Namespace) -> None:
    """Make data and models for each seed, and run the four experiments of docs/benchmarks.md."""
    folder: Path = args.output
    make_text_task(args.gsm8k, folder / "text", args.seeds)
    for seed in args.seeds:
        make_sorting_task(folder, seed)

    def recipe(name: str, config: str, model: str, rows: str) -> Recipe:
        flags = ("--model_name_or_path", str(folder / model), "--dataset_name", str(folder / rows))
        return Recipe(CONFIGS / f"{config}.yaml", folder / name, args.seeds, flags, args.jobs)

    text = ("text", "text/model-{seed}", "text/data")
    run_sweep(recipe("sft", "sft", "task-{seed}/model", "task-{seed}/sft"), args.schedules, (1e-3, 2e-3, 4e-3))
    run_sweep(recipe("pretraining", *text), args.schedules, (2e-3, 4.5e-3, 1e-2))
    run_sweep(recipe("grpo", "grpo", "sft-{seed}", "task-{seed}/grpo"), args.schedules, (5e-5, 1e-4, 2e-4, 4e-4))
    run_budgets(recipe("budgets", *text), peak=4.5e-3)


def make_sorting_task(folder: Path, seed: int) -> None:
    """Make the sorting task of a seed, and the fine-tuned model that GRPO starts from."""
    task, sft = folder / f"task-{seed}", folder / f"sft-{seed}"
    save_model(task / "model", layers=2, width=128, seed=seed)
    save_data(task, train=3000, test=500, backwards_share=0.6, seed=seed)
    if not (sft / "model.safetensors").is_file():
        places = ["--model_name_or_path", task / "model", "--dataset_name", task / "sft", "--output_dir", sft]
        words = ["recipes/sft.py", "--config", CONFIGS / "sft.yaml", "--seed", seed, *places]
        subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
