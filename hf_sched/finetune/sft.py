"""Supervised fine-tuning with TRL, of all weights or with LoRA (`use_peft: true`).

accelerate launch -m hf_sched.finetune.sft --config my.yaml
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from trl import SFTConfig, SFTTrainer

from hf_sched.finetune.data.load import DEMONSTRATIONS, to_demonstration
from hf_sched.finetune.dry_run import show_sample
from hf_sched.finetune.pipeline import Recipe, Run, run_recipe


class SFT(Recipe):
    """Trains on demonstrations: `messages`, `prompt` and `completion`, `text`, or `question` and `answer`."""

    kind = "sft"
    config_class = SFTConfig
    trainer_class = SFTTrainer
    convert = staticmethod(to_demonstration)

    def row_forms(self, run: Run) -> Sequence[Sequence[str]]:
        return ((run.training.dataset_text_field,), *DEMONSTRATIONS)

    def preview(self, trainer: Any, run: Run) -> None:
        show_sample(trainer, in_full=run.pipeline.dry_run)


main = partial(run_recipe, SFT())

if __name__ == "__main__":
    raise SystemExit(main())
