"""Many budgets for the price of one: a `wsd` run with a cooldown for each budget, against a cosine run for each.

    python -m benchmarks.learning.budgets --config benchmarks/learning/configs/text.yaml --output runs/learning/budgets \\
        --steps 400 --cosine 2e-3 --wsd 2e-3 --seeds 0 1 2 3 4 -- --model_name_or_path runs/learning/text/model-{seed}

The long run holds its peak and ends in a cooldown; the models of the smaller budgets branch off its checkpoints
(`--anneal_from`), each with a cooldown of the same share of its own length. Whatever stands behind `--` goes to the
recipe, as in learning.py. Writes report.md and runs.csv into the output folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from benchmarks.learning.budgets_report import COSINE, WSD, write_report
from benchmarks.learning.run import say, split_words
from benchmarks.learning.trials import Trial, Trials, recipe_words
from hf_sched.plan.training_config import RunConfig
from hf_sched.reference.named_schedule import NamedSchedule

SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(1))
SHAPE = "1-sqrt"


@dataclass(frozen=True)
class Budget:
    """The steps of a model, and how many of them are its cooldown."""

    steps: int
    cooldown: int

    @property
    def stable(self) -> int:
        """Where the cooldown begins."""
        return self.steps - self.cooldown


def budgets_of(steps: int, cooldown: Fraction) -> list[Budget]:
    """A quarter, a half and the whole of the steps.

    Raises:
        ValueError: A budget or its cooldown is no whole number of steps, so that the shares would not be as said.
    """
    whole = (SHARES[0] * cooldown).denominator
    if steps < 1 or steps % whole:
        raise ValueError(
            f"`--steps` must be a multiple of {whole}, received {steps}: a cooldown is {cooldown} of a quarter of it"
        )
    return [Budget(int(share * steps), int(share * steps * cooldown)) for share in SHARES]


def main() -> int:
    """Run it; the exit status is 1 if trainings are left to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a recipe's YAML file")
    parser.add_argument("--steps", type=int, required=True, help="of the longest budget")
    parser.add_argument(
        "--cooldown", type=Fraction, default=Fraction(9, 50), help="share of each budget (default: 0.18)"
    )
    parser.add_argument("--cosine", type=float, required=True, help="peak learning rate of the cosine runs")
    parser.add_argument("--wsd", type=float, required=True, help="peak learning rate of the wsd run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--metric", default="eval_loss", help="as in learning.py (default: %(default)s)")
    parser.add_argument("--budget_minutes", type=float, default=float("inf"), help="begin no training after that")
    parser.add_argument("--jobs", type=int, help="trainings at a time (default: one a GPU, or a core)")
    parser.add_argument("--output", type=Path, required=True)
    ours, recipe_flags = split_words(sys.argv[1:])
    args = parser.parse_args(ours)
    try:
        budgets = budgets_of(args.steps, args.cooldown)
        runner = Trials(args.output, args.metric, jobs=args.jobs, budget=60 * args.budget_minutes, say=say)
        trials = plan_trials(args, budgets, runner, recipe_flags)
        outcomes = runner.run(trials)
        left = len(trials) - len(outcomes)
        write_report(outcomes, args.output, args.cooldown, metric=args.metric, command=sys.argv, left=left)
    except ValueError as error:
        parser.error(str(error))
    say(f"written: {args.output / 'report.md'}")
    return int(len(outcomes) < len(trials))


def plan_trials(
    args: argparse.Namespace, budgets: Sequence[Budget], runner: Trials, recipe_flags: Sequence[str]
) -> list[Trial]:
    """For each seed a cosine run for each budget, the long run, and a branch for each budget but the last."""
    config = RunConfig.read(args.config)
    *smaller, whole = budgets

    cosine, stable = NamedSchedule.read(COSINE), NamedSchedule.read(f"wsd:decay={whole.cooldown},decay_shape={SHAPE}")

    def trial(way: str, budget: int, trained: int, seed: int, *more: str, after: Trial | None = None) -> Trial:
        schedule, peak = (cosine, args.cosine) if way == COSINE else (stable, args.wsd)
        words = recipe_words(args.config, config.kind, schedule, peak, seed, args.metric, (*recipe_flags, *more))
        facts = {"schedule": way, "learning_rate": peak, "seed": seed, "budget": budget, "trained": trained}
        return Trial(f"{way}-{budget}/seed-{seed}", words, after, facts)

    trials = []
    length = ("--max_steps", str(whole.steps))
    # The branch points of larger budgets are multiples of that of the smallest.
    saves = ("--save_strategy", "steps", "--save_steps", str(smaller[0].stable))
    for seed in dict.fromkeys(args.seeds):
        for one in budgets:
            own = ("--max_steps", str(one.steps))
            trials.append(trial(COSINE, one.steps, one.steps, seed, *own))
        long = trial(WSD, whole.steps, whole.steps, seed, *length, *saves)
        trials.append(long)
        for one in smaller:
            checkpoint = str(runner.path(long) / f"checkpoint-{one.stable}")
            branch = ("--anneal_from", checkpoint, "--anneal_duration", str(one.cooldown), "--anneal_shape", SHAPE)
            trials.append(trial(WSD, one.steps, one.cooldown, seed, *length, *branch, after=long))
    return trials


if __name__ == "__main__":
    raise SystemExit(main())
