"""Arguments that the recipes take in addition to those of transformers and TRL."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hf_sched.callbacks.time_budget import TimeBudget, TimeReader
from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.evaluation import EvaluationArguments
from hf_sched.scheduler.anneal import cooldown_phase
from hf_sched.scheduler.hyperparameters import read_schedules
from hf_sched.scheduler.named_groups import Rate, read_rules
from hf_sched.schedules.validation import ArgumentError, Number


def _from_json(value: Any) -> Any:
    """A mapping that is given as JSON on the command line."""
    with suppress(ValueError):
        return json.loads(value) if isinstance(value, str) else value
    return value


@dataclass
class PipelineArguments:
    """A dry run, speed, messages, a folder used again, a cooldown from a checkpoint or before a deadline."""

    dry_run: bool = field(
        default=False, metadata={"help": "Show the plan, a training sample and the rewards' probe; do not train."}
    )
    fast: bool = field(
        default=False,
        metadata={
            "help": "Choose attention, kernels, generation and the batch per forward pass by what is installed and by "
            "the memory of the GPU. The samples of each optimizer step stay the same."
        },
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
    time_budget: float | str | None = field(
        default=None,
        metadata={
            "help": 'When the run must end, cooled down and saved: "2h30m", "18:00", "2026-11-28 18:00", "slurm".'
        },
    )
    time_reserve: str | None = field(
        default=None,
        metadata={"help": 'Time between the last step and the end of `time_budget` ("5m"); 2% of it by default.'},
    )
    schedules: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'Schedules of other hyperparameters: {"weight_decay": "hold 50% | decay to 0"}.'},
    )

    def __post_init__(self) -> None:
        """Check what does not depend on the run."""
        self.schedules = _from_json(self.schedules)
        read_schedules(self.schedules)
        if self.time_budget is not None:
            TimeBudget.parse(self.time_budget, time.time())
            if self.anneal_from is not None:
                rule = "cannot be combined with `anneal_from`, which sets the length of the run"
                raise ArgumentError("time_budget", rule=rule)
            try:
                cooldown_phase(self.anneal_duration, self.anneal_shape, 1)
            except ArgumentError as error:
                raise ArgumentError(f"anneal_{error.name}", "", error.received, error.hint, error.rule) from None
        if self.time_reserve is not None:
            TimeReader()("time_reserve", self.time_reserve)
            if self.time_budget is None:
                raise ArgumentError("time_reserve", rule="needs `time_budget`")


@dataclass
class GroupArguments:
    """Other peaks and schedules for parts of the model, and Muon."""

    lr_groups: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'Peaks by pattern of names: {"lm_head": "0.1x", "layers.(0-7)": {"lr": 1e-5}}.'},
    )
    decay_per_layer: float | None = field(
        default=None, metadata={"help": "The peak of each layer, as a fraction of that of the next layer."}
    )
    loraplus_lr_ratio: float | None = field(
        default=None, metadata={"help": "LoRA+: the peak of the B matrices, as a multiple of `learning_rate`."}
    )
    optimizer: str | None = field(
        default=None, metadata={"help": "`muon`: Muon for the matrices of the layers, AdamW for the rest."}
    )
    muon_learning_rate: float | str | None = field(
        default=None, metadata={"help": 'The peak of Muon, or a multiple of `learning_rate` ("10x"); 1x by default.'}
    )

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        self.lr_groups = _from_json(self.lr_groups)
        read_rules(self.lr_groups)
        if self.decay_per_layer is not None:
            Number(0, 1, above_low=True)("decay_per_layer", self.decay_per_layer)
        if self.loraplus_lr_ratio is not None:
            Number(0, above_low=True)("loraplus_lr_ratio", self.loraplus_lr_ratio)
        if self.optimizer not in (None, "muon"):
            raise ArgumentError("optimizer", "muon", self.optimizer, "`optim` sets all other optimizers")
        if self.muon_learning_rate is not None:
            Rate.read("muon_learning_rate", self.muon_learning_rate)
            if self.optimizer is None:
                raise ArgumentError("muon_learning_rate", rule="needs `optimizer: muon`")

    @property
    def are_given(self) -> bool:
        """Whether the optimizer differs from the Trainer's."""
        return any((self.lr_groups, self.decay_per_layer, self.loraplus_lr_ratio, self.optimizer))


@dataclass
class RewardArguments:
    """Rewards of GRPO."""

    reward_funcs: list[Any] = field(
        default_factory=list,
        metadata={"help": "Rewards, by name or as mappings with parameters; see `hf_sched.finetune.rewards`."},
    )


RECIPE_ARGUMENTS = (PipelineArguments, ColumnArguments, EvaluationArguments, GroupArguments, RewardArguments)
"""All of them; `reward_funcs` belongs to GRPO only."""
