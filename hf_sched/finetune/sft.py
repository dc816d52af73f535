"""Supervised fine-tuning with TRL, of all weights or with LoRA (`use_peft: true`).

accelerate launch -m hf_sched.finetune.sft --config my.yaml
"""

from __future__ import annotations

from functools import partial
from typing import Any

from trl import SFTConfig, SFTTrainer

from hf_sched.finetune.data.conversion import Target, sft_target
from hf_sched.finetune.data.files import columns_of
from hf_sched.finetune.dry_run import show_sample
from hf_sched.finetune.pipeline import Recipe, Run, run_recipe
from hf_sched.schedules.validation import ArgumentError


class SFT(Recipe):
    """Trains on demonstrations: `messages`, `prompt` and `completion`, `text`, or `question` and `answer`."""

    kind = "sft"
    config_class = SFTConfig
    trainer_class = SFTTrainer

    def target(self, run: Run) -> Target:
        return sft_target(run.training.dataset_text_field, is_last_turn_only=bool(run.training.completion_only_loss))

    def check_rows(self, run: Run) -> None:
        # TRL would train on all tokens.
        if run.training.completion_only_loss and not {"prompt", "input_ids"} & {*columns_of(run.train_rows)}:
            rule = "needs rows with a completion: `prompt` and `completion`, `question` and `answer`, or `messages`"
            raise ArgumentError("completion_only_loss", rule=rule)

    def preview(self, trainer: Any, run: Run) -> None:
        show_sample(trainer, in_full=run.pipeline.dry_run)


main = partial(run_recipe, SFT())

if __name__ == "__main__":
    raise SystemExit(main())
