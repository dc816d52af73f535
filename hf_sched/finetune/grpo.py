"""GRPO with TRL: reinforcement learning from rewards that check the answer.

accelerate launch -m hf_sched.finetune.grpo --config my.yaml
"""

from __future__ import annotations

from functools import partial
from typing import Any

from trl import GRPOConfig, GRPOTrainer

from hf_sched.finetune.arguments import RewardArguments
from hf_sched.finetune.data.files import columns_of
from hf_sched.finetune.dry_run import show_probe
from hf_sched.finetune.pipeline import Recipe, Run, run_recipe
from hf_sched.finetune.rewards import check_reward_columns, load_rewards


class GRPO(Recipe):
    """Trains on problems: `prompt` with the columns that the rewards need, or `question` and `answer`."""

    kind = "grpo"
    config_class = GRPOConfig
    trainer_class = GRPOTrainer
    extra_arguments = (RewardArguments,)

    def check(self, run: Run) -> None:
        have_worked = run.resume is not None and "`reward_funcs`" not in str(run.resume.differences)
        run.trainer_arguments["reward_funcs"], run.training.reward_weights = load_rewards(
            run.rewards.reward_funcs, run.training.reward_weights, have_worked=have_worked
        )

    def check_rows(self, run: Run) -> None:
        check_reward_columns(run.trainer_arguments["reward_funcs"], columns_of(run.train_rows))

    def preview(self, trainer: Any, run: Run) -> None:
        show_probe(trainer, run.trainer_arguments["reward_funcs"], in_full=run.pipeline.dry_run)


main = partial(run_recipe, GRPO())

if __name__ == "__main__":
    raise SystemExit(main())
