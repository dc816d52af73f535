"""Record what real trainers do with a folder of configurations, on one process or several, to compare it with plans.

    python tests/helpers/launchers/observed_runs.py FOLDER

Creates a trainer for each `*.yaml`, and trains those named `train_*.yaml` to the end. The main process writes
`FOLDER/observed_WORLDSIZE.json`.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import trl

import hf_sched  # noqa: F401  (registers the schedules)
from hf_sched.finetune.config import parse
from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.data.conversion import TARGETS
from hf_sched.finetune.data.load import load_rows

_TYPES = {
    "sft": (trl.SFTConfig, trl.SFTTrainer),
    "dpo": (trl.DPOConfig, trl.DPOTrainer),
    "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
}


class Reward:
    """The length of a completion. Counts the completions and prompts of each generation."""

    __name__ = "length"

    def __init__(self) -> None:
        self.distinct_prompts: list[int] = []
        self.completions: list[int] = []

    def __call__(self, prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float]:
        self.distinct_prompts.append(len({json.dumps(prompt) for prompt in prompts}))
        self.completions.append(len(completions))
        return [float(len(str(completion))) for completion in completions]


def observe(path: Path) -> dict[str, Any]:
    """The counts of a configuration's trainer, and the logs and checkpoints of its training."""
    kind = path.stem.removeprefix("train_").split("_")[0]
    arguments, trainer_class = _TYPES[kind]
    classes = (trl.ScriptArguments, arguments, trl.ModelConfig, trl.DatasetMixtureConfig)
    script, args, model, mixture = parse(*classes, args=["--config", str(path)])
    evaluating = args.eval_strategy != "no"
    train, test, _, _ = load_rows(script, mixture, TARGETS[kind], ColumnArguments(), evaluating=evaluating)
    reward = Reward()
    rewards = {"reward_funcs": [reward]} if kind == "grpo" else {}
    data = {"train_dataset": train, "eval_dataset": test}
    trainer = trainer_class(model=model.model_name_or_path, args=args, **data, **rewards)
    loader = trainer.get_train_dataloader()
    _, steps_per_epoch, _, _, total_batch, _, max_steps = trainer.set_initial_training_values(args, loader)
    seen = {
        "max_steps": max_steps,
        "steps_per_epoch": steps_per_epoch,
        "total_batch": total_batch,
        "warmup_steps": args.get_warmup_steps(max_steps),
        "processes": args.world_size,
    }
    if path.stem.startswith("train_"):
        trainer.train()
        history = trainer.state.log_history
        seen |= {
            "global_step": trainer.state.global_step,
            "epoch": trainer.state.epoch,
            "learning_rates": [row["learning_rate"] for row in history if "learning_rate" in row],
            "evaluations": [row["step"] for row in history if "eval_runtime" in row],
            "checkpoints": sorted(int(item.name.split("-")[1]) for item in Path(args.output_dir).glob("checkpoint-*")),
            "distinct_prompts": reward.distinct_prompts,
            "completions": reward.completions,
        }
    del trainer
    gc.collect()
    return seen


def main() -> None:
    """Observe every configuration of the folder."""
    folder = Path(sys.argv[1])
    observed = {path.stem: observe(path) for path in sorted(folder.glob("*.yaml"))}
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        text = json.dumps(observed)
        (folder / f"observed_{state.num_processes}.json").write_text(text, encoding="utf-8")
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
