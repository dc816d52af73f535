"""Arguments that the recipes take in addition to those of transformers and TRL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.evaluation import EvaluationArguments


@dataclass
class PipelineArguments:
    """A dry run, messages, a folder used again, a cooldown from a checkpoint at a constant rate (`wsd`, `phases`)."""

    dry_run: bool = field(
        default=False, metadata={"help": "Show the plan, a training sample and the rewards' probe; do not train."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Delete the checkpoints of a previous run in `output_dir` and start anew."}
    )
    verbose: bool = field(default=False, metadata={"help": "Show the messages and progress bars of other libraries."})
    anneal_from: str | None = field(
        default=None, metadata={"help": "Checkpoint of another run to cool down from; needs its own `output_dir`."}
    )
    anneal_duration: str = field(
        default="20%", metadata={"help": "Length of the cooldown: steps, or a percentage of the shortened run."}
    )
    anneal_shape: str = field(default="1-sqrt", metadata={"help": "Shape of the decay."})


@dataclass
class RewardArguments:
    """Rewards of GRPO."""

    reward_funcs: list[Any] = field(
        default_factory=list,
        metadata={"help": "Rewards, by name or as mappings with parameters; see `hf_sched.finetune.rewards`."},
    )


RECIPE_ARGUMENTS = (PipelineArguments, ColumnArguments, EvaluationArguments, RewardArguments)
"""All of them; `reward_funcs` belongs to GRPO only."""
