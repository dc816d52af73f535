"""Train models for several budgets: one `wsd` run with a branch for each budget, and a cosine run for each budget.

The long run holds its peak and ends in a cooldown. The models of the smaller budgets branch off its checkpoints
(`--anneal_from`), each with a cooldown that is the same fraction of its own length.
"""

from __future__ import annotations

from fractions import Fraction

from benchmarks.learning.report import COSINE, WSD, write_budgets
from benchmarks.learning.sweep import Recipe
from benchmarks.learning.trials import Outcome, Trial
from hf_sched.reference.named_schedule import NamedSchedule

SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(1))
COOLDOWN = Fraction(9, 50)
SHAPE = "1-sqrt"


def cooldowns(steps: int, cooldown: Fraction = COOLDOWN) -> dict[int, int]:
    """Return the length of the cooldown for each budget: a quarter, a half and all of the steps.

    Raises:
        ValueError: A budget or its cooldown is not a whole number of steps.
    """
    multiple = (SHARES[0] * cooldown).denominator
    if steps < 1 or steps % multiple:
        raise ValueError(
            f"`steps` must be a multiple of {multiple}, received {steps}; a cooldown is {cooldown} of a quarter of it"
        )
    return {int(share * steps): int(share * steps * cooldown) for share in SHARES}


def run_budgets(
    recipe: Recipe, steps: int, *, cosine_peak: float, wsd_peak: float, cooldown: Fraction = COOLDOWN
) -> list[Outcome]:
    """Train all models and write report.md and runs.csv.

    Raises:
        ValueError: The steps do not divide into budgets, or every seed failed.
    """
    of_budget = cooldowns(steps, cooldown)
    trials = recipe.trials
    cosine, stable = NamedSchedule.read(COSINE), NamedSchedule.read(f"wsd:decay={of_budget[steps]},decay_shape={SHAPE}")

    def trial(way: str, budget: int, trained: int, seed: int, *more: str, after: Trial | None = None) -> Trial:
        schedule, peak = (cosine, cosine_peak) if way == COSINE else (stable, wsd_peak)
        facts = {"schedule": way, "learning_rate": peak, "seed": seed, "budget": budget, "trained": trained}
        return Trial(f"{way}-{budget}/seed-{seed}", recipe.words(schedule, peak, seed, *more), after, facts)

    planned = []
    # The branch points of larger budgets are multiples of the smallest one.
    smallest = min(of_budget)
    saves = ("--save_strategy", "steps", "--save_steps", str(smallest - of_budget[smallest]))
    for seed in dict.fromkeys(recipe.seeds):
        planned += [trial(COSINE, budget, budget, seed, "--max_steps", str(budget)) for budget in of_budget]
        length = ("--max_steps", str(steps))
        long = trial(WSD, steps, steps, seed, *length, *saves)
        planned.append(long)
        for budget, decay in of_budget.items():
            if budget < steps:
                checkpoint = str(trials.path(long) / f"checkpoint-{budget - decay}")
                branch = ("--anneal_from", checkpoint, "--anneal_duration", str(decay), "--anneal_shape", SHAPE)
                planned.append(trial(WSD, budget, decay, seed, *length, *branch, after=long))
    outcomes = trials.run(planned)
    write_budgets(outcomes, recipe.output, recipe.metric, float(cooldown))
    return outcomes
