"""Does the schedule pay? A recipe trained under several schedules, each at several peaks, over several seeds.

    python -m benchmarks.learning.run --config benchmarks/learning/configs/sft.yaml --output runs/learning/sft \\
        --schedules linear cosine cosine_floor:floor_ratio=0.1 "warmup 5% | hold | decay 20% 1-sqrt" \\
        --learning_rates 1e-3 2e-3 4e-3 --seeds 0 1 2 3 4 --metric eval_loss --budget_minutes 60 \\
        -- --model_name_or_path runs/learning/task-{seed}/model

Whatever stands behind `--` goes to the recipe; `{seed}` in it is the seed. Trainings run side by side, one on each GPU
or core; killed, the same command goes on where it stopped. Into the output folder it writes report.md (each schedule at
its best peak, the mean over the seeds with its interval, the difference to the baseline with a paired test),
learning.png and runs.csv, one line a training.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.learning.report import write_report
from benchmarks.learning.trials import Trial, Trials, recipe_words
from hf_sched.plan.training_config import RunConfig
from hf_sched.reference.named_schedule import NamedSchedule


def main() -> int:
    """Run what is requested; the exit status is 1 if trainings are left to do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="a recipe's YAML file")
    parser.add_argument("--schedules", nargs="+", required=True, help="NAME, NAME:ARGUMENT=VALUE or phases")
    parser.add_argument("--learning_rates", nargs="+", type=float, required=True, help="peaks, each for each schedule")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--baseline", default="linear", help="what the others are compared with (default: %(default)s)")
    parser.add_argument(
        "--metric",
        default="eval_loss",
        help="of held-out data: what the trainer's evaluation logs, or "
        "exact_match, which needs evaluate_on (default: %(default)s)",
    )
    parser.add_argument(
        "--higher_is_better",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="of the metric (default: all but losses)",
    )
    parser.add_argument("--budget_minutes", type=float, default=float("inf"), help="begin no training after that")
    parser.add_argument("--jobs", type=int, help="trainings at a time (default: one a GPU, or a core)")
    parser.add_argument("--output", type=Path, required=True)
    ours, recipe_flags = split_words(sys.argv[1:])
    args = parser.parse_args(ours)
    try:
        trials = plan_trials(args, recipe_flags)
        runner = Trials(args.output, args.metric, jobs=args.jobs, budget=60 * args.budget_minutes, say=say)
        outcomes = runner.run(trials)
        higher = "loss" not in args.metric if args.higher_is_better is None else args.higher_is_better
        write_report(
            outcomes,
            args.output,
            metric=args.metric,
            higher=higher,
            baseline=args.baseline,
            command=sys.argv,
            left=len(trials) - len(outcomes),
        )
    except ValueError as error:
        parser.error(str(error))
    say(f"written: {args.output / 'report.md'}")
    return int(len(outcomes) < len(trials))


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line before and behind `--`."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def plan_trials(args: argparse.Namespace, recipe_flags: Sequence[str]) -> list[Trial]:
    """A training for each schedule, peak and seed; a seed is done with all of them before the next one is begun.

    Raises:
        ValueError: A schedule, or what is to be done with it, is wrong.
    """
    config = RunConfig.read(args.config)
    schedules = [NamedSchedule.read(text) for text in dict.fromkeys(args.schedules)]
    _check(args, config, schedules)
    return [
        Trial(
            f"{_slug(schedule.label)}/{peak:g}/seed-{seed}",
            recipe_words(args.config, config.kind, schedule, peak, seed, args.metric, recipe_flags),
            facts={"schedule": schedule.label, "learning_rate": peak, "seed": seed},
        )
        for seed in dict.fromkeys(args.seeds)
        for schedule in schedules
        for peak in dict.fromkeys(args.learning_rates)
    ]


def _check(args: argparse.Namespace, config: RunConfig, schedules: Sequence[NamedSchedule]) -> None:
    if config.kind not in ("sft", "grpo"):
        raise ValueError(
            f"`--config` must be a file for recipes/sft.py or recipes/grpo.py, received {str(args.config)!r}"
        )
    labels = [schedule.label for schedule in schedules]
    if args.baseline not in labels:
        raise ValueError(f"`--baseline` must be one of `--schedules` ({', '.join(labels)}), received {args.baseline!r}")
    if args.metric == "exact_match" and not config.given.get("evaluate_on"):
        raise ValueError(f"`--metric exact_match` needs `evaluate_on` in {args.config}: say on what")
    steps = config.given.get("max_steps")
    for schedule in schedules:
        if isinstance(steps, int) and steps > 0:  # otherwise each training says it
            schedule.play(num_training_steps=steps, num_warmup_steps=0, peak=max(args.learning_rates))


def _slug(label: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", label).strip("_")


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
