"""The experiments: a sweep of schedules, peaks and seeds, and models for several budgets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from benchmarks.learning.report import BUDGETS, COSINE, WSD, write_budgets, write_sweep
from benchmarks.learning.trials import Recipe, Trial, run_trials
from hf_sched.reference.named_schedule import NamedSchedule

BASELINE = "linear"
SHAPE = "1-sqrt"


def run_sweep(recipe: Recipe, schedules: Sequence[str], peaks: Sequence[float], baseline: str = BASELINE) -> None:
    """Train with each schedule at each peak and seed, and write report.md, learning.png and runs.csv.

    Raises:
        ValueError: A schedule or the baseline is wrong; nothing has been trained then.
    """
    named = [NamedSchedule.read(text) for text in dict.fromkeys(schedules)]
    labels = [schedule.label for schedule in named]
    if baseline not in labels:
        raise ValueError(f"`--baseline` must be one of `--schedules` ({', '.join(labels)}), received {baseline!r}")
    steps = recipe.given.get("max_steps")
    for schedule in named:
        if isinstance(steps, int) and steps > 0:  # otherwise the training itself checks it
            schedule.curve(num_training_steps=steps, num_warmup_steps=0, peak=max(peaks))
    trials = [
        Trial(f"{_slug(schedule.label)}/{peak:g}/seed-{seed}", schedule, peak, seed)
        for seed in dict.fromkeys(recipe.seeds)
        for schedule in named
        for peak in dict.fromkeys(peaks)
    ]
    write_sweep(run_trials(recipe, trials), recipe.output, baseline)


def run_budgets(recipe: Recipe, peak: float, budgets: Mapping[int, int] = BUDGETS) -> None:
    """Train a model for each budget in two ways, and write report.md and runs.csv.

    One long `wsd` run holds its peak and ends in a cooldown; the models of the smaller budgets branch off its
    checkpoints (`--anneal_from`). The other way is a cosine run for each budget.

    Args:
        recipe: The recipe.
        peak: The peak learning rate of all trainings.
        budgets: The steps of each cooldown by the steps of its model. A branch point must be a multiple of the first.
    """
    steps, smallest = max(budgets), min(budgets)
    cosine = NamedSchedule.read(COSINE)
    wsd = NamedSchedule.read(f"wsd:decay={budgets[steps]},decay_shape={SHAPE}")
    wsd = dataclasses.replace(wsd, label=WSD)
    length = ("--max_steps", str(steps))
    saves = ("--save_strategy", "steps", "--save_steps", str(smallest - budgets[smallest]))
    trials = []
    for seed in dict.fromkeys(recipe.seeds):
        long = Trial(f"{WSD}-{steps}/seed-{seed}", wsd, peak, seed, (*length, *saves))
        trials.append(long)
        for budget, decay in budgets.items():
            flags = ("--max_steps", str(budget))
            trials.append(Trial(f"{COSINE}-{budget}/seed-{seed}", cosine, peak, seed, flags))
            if budget < steps:
                checkpoint = str(long.folder(recipe) / f"checkpoint-{budget - decay}")
                branch = ("--anneal_from", checkpoint, "--anneal_duration", str(decay), "--anneal_shape", SHAPE)
                trials.append(Trial(f"{WSD}-{budget}/seed-{seed}", wsd, peak, seed, (*length, *branch), True))
    write_budgets(run_trials(recipe, trials), recipe.output, budgets)


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")
