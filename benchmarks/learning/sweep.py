"""Train a recipe with several schedules, each at several peaks, over several seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.learning.report import write_sweep
from benchmarks.learning.trials import Outcome, Trial, Trials, recipe_words
from hf_sched.reference.named_schedule import NamedSchedule

BASELINE = "linear"


@dataclass(frozen=True)
class Recipe:
    """A recipe's configuration, and how its trainings are judged."""

    config: Path
    output: Path
    seeds: Sequence[int]
    metric: str = "eval_loss"
    """A key of the trainer's evaluation, or `exact_match`, which needs `evaluate_on`."""
    flags: Sequence[str] = ()
    """More flags for the recipe; `{seed}` in them becomes the seed."""
    jobs: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The keys of the configuration."""
        return dict(yaml.safe_load(self.config.read_text(encoding="utf-8")))

    @property
    def trials(self) -> Trials:
        """Its trainings, below the output folder."""
        return Trials(self.output, self.metric, self.jobs)

    def words(self, schedule: NamedSchedule, peak: float, seed: int, *more: str) -> tuple[str, ...]:
        """Return the command of a training."""
        kind = "grpo" if "reward_funcs" in self.given else "sft"
        return recipe_words(self.config, kind, schedule, peak, seed, self.metric, (*self.flags, *more))


def run_sweep(
    recipe: Recipe, schedules: Sequence[str], peaks: Sequence[float], *, baseline: str = BASELINE
) -> list[Outcome]:
    """Train with each schedule at each peak and seed, and write report.md, learning.png and runs.csv.

    Raises:
        ValueError: A schedule, the baseline or the metric is wrong; nothing has been trained then.
    """
    named = [NamedSchedule.read(text) for text in dict.fromkeys(schedules)]
    _check(recipe, named, max(peaks), baseline)
    trials = [
        Trial(
            f"{_slug(schedule.label)}/{peak:g}/seed-{seed}",
            recipe.words(schedule, peak, seed),
            facts={"schedule": schedule.label, "learning_rate": peak, "seed": seed},
        )
        for seed in dict.fromkeys(recipe.seeds)
        for schedule in named
        for peak in dict.fromkeys(peaks)
    ]
    outcomes = recipe.trials.run(trials)
    write_sweep(outcomes, recipe.output, recipe.metric, baseline)
    return outcomes


def _check(recipe: Recipe, schedules: Sequence[NamedSchedule], peak: float, baseline: str) -> None:
    labels = [schedule.label for schedule in schedules]
    if baseline not in labels:
        raise ValueError(f"`--baseline` must be one of `--schedules` ({', '.join(labels)}), received {baseline!r}")
    if recipe.metric == "exact_match" and not recipe.given.get("evaluate_on"):
        raise ValueError(f"`--metric exact_match` needs `evaluate_on` in {recipe.config}")
    steps = recipe.given.get("max_steps")
    for schedule in schedules:
        if isinstance(steps, int) and steps > 0:  # otherwise the training itself checks it
            schedule.curve(num_training_steps=steps, num_warmup_steps=0, peak=peak)


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")
