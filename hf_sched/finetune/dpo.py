"""DPO with TRL: direct preference optimization on pairs of a better and a worse answer.

accelerate launch -m hf_sched.finetune.dpo --config my.yaml
"""

from __future__ import annotations

from functools import partial
from typing import Any

from trl import DPOConfig, DPOTrainer

from hf_sched.finetune.dry_run import show_pair
from hf_sched.finetune.pipeline import Recipe, Run, run_recipe


class DPO(Recipe):
    """Trains on preferences: `chosen` and `rejected` with a `prompt` (may be implicit) or a `question`."""

    kind = "dpo"
    config_class = DPOConfig
    trainer_class = DPOTrainer

    def preview(self, trainer: Any, run: Run) -> None:
        show_pair(trainer, in_full=run.pipeline.dry_run)


main = partial(run_recipe, DPO())

if __name__ == "__main__":
    raise SystemExit(main())
