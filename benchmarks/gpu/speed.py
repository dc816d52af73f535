"""Tokens per second of the shipped configs and of TRL's own script, and what each setting adds to TRL's defaults."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.common.programs import BARE, RECIPE, WARM_UP, Observed, Program, run_alone, training
from benchmarks.common.recipe_runs import ON_CPU, REWARD, ROOT, RunFailed

# Keys that say nothing about speed, and generation by vLLM, which is a separate setting below.
_LEFT_OUT = {
    *("dataset_config", "num_train_epochs", "warmup_steps", "eval_strategy", "eval_steps", "lr_scheduler_kwargs"),
    *("use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "save_steps", "save_total_limit"),
}
# TRL's script knows neither our rewards nor our schedules.
_FIXED: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
_TINY: dict[str, dict[str, Any]] = {"sft": {"max_length": 512}, "grpo": {"max_completion_length": 8}}
DEFAULTS = "TRL's defaults"
SHIPPED = {script: f"shipped config, {script}" for script in (BARE, RECIPE)}


@dataclass(frozen=True)
class Setting:
    """Arguments that are added to those of the settings before; `needs` is a package."""

    name: str
    arguments: Mapping[str, Any]
    needs: str | None = None


_SHARED = (
    Setting("no gradient checkpointing", {"gradient_checkpointing": False}),
    Setting("weights in bf16 (other numerics)", {"dtype": "bfloat16"}),
    Setting("kernels: flash attention", {"attn_implementation": "flash_attention_2"}, "flash_attn"),
    Setting("kernels: liger", {"use_liger_kernel": True}, "liger_kernel"),
)
SETTINGS = {
    "sft": (
        *_SHARED,
        # After flash attention: other kernels compute all pairs of tokens in the packed row and mask most of them.
        Setting("packing", {"packing": True}),
        Setting("batch shape: 16 a process", {"per_device_train_batch_size": 16}),
    ),
    "grpo": (
        *_SHARED,
        Setting("vLLM on the same GPU", {"use_vllm": True, "vllm_mode": "colocate"}, "vllm"),
        Setting("batch shape: 64 completions a process", {"per_device_train_batch_size": 64}),
    ),
}


@dataclass
class Case:
    """A size of model and a kind of training."""

    size: str
    kind: str
    model: Path
    rows: Path
    device: str
    steps: int
    tiny: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    """The trainings that could not be measured, and why."""

    def shipped(self) -> dict[str, Any]:
        """Return the arguments of the shipped config that TRL's script also accepts."""
        file = ROOT / "recipes" / "configs" / f"qwen2.5-{self.size}_gsm8k_{self.kind}.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {key: value for key, value in config.items() if key not in _LEFT_OUT} | self.required()

    def required(self) -> dict[str, Any]:
        """Return the arguments without which a script cannot run; everything else is TRL's default."""
        return {
            "model_name_or_path": str(self.model),
            "dataset_name": str(self.rows / self.kind),
            "max_steps": self.steps,
            **({"reward_funcs": [REWARD]} if self.kind == "grpo" else {}),
            **_FIXED,
            **(ON_CPU if self.device == "cpu" else {}),
            **(_TINY[self.kind] if self.tiny else {}),
        }


@dataclass(frozen=True)
class Speed:
    """Figures of one run."""

    tokens: float
    """Tokens per second without padding: all that are read in SFT, prompts and completions in GRPO."""
    step: float
    """Median seconds per step."""
    length: float
    """Mean tokens per sequence or packed row."""
    peak_bytes: int
    losses: list[float]

    @classmethod
    def of(cls, observed: Observed, sequences: int) -> Speed:
        """Measure the steps after `WARM_UP`; `sequences` is their number per step."""
        counted = observed.logged("num_tokens")
        walls = [step.wall for step in observed.steps[WARM_UP:]]
        tokens = counted[-1] - counted[WARM_UP - 1]
        peak = observed.record["gpu_bytes"] or observed.peak_bytes
        length = tokens / len(walls) / sequences
        return cls(tokens / sum(walls), median(walls), length, peak, observed.logged("loss"))


def measure_speed(case: Case, folder: Path, rounds: int, order: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each training by name, one entry per round, in an order shuffled for each round.

    Every training runs once before, uncounted: this fills caches and shows which settings work here.
    """
    sequences: dict[str, int] = {}
    programs: dict[str, Program] = {}

    def works(name: str, script: str, arguments: dict[str, Any]) -> bool:
        program = training(script, case.kind, folder / f"{case.size}-{case.kind}-{len(sequences)}", arguments)
        sequences[name] = sequences_of(arguments)
        try:
            run_alone(program)
        except RunFailed as error:
            case.failed[name] = str(error).splitlines()[-1]
            return False
        programs[name] = program
        return True

    for script, name in SHIPPED.items():
        works(name, script, case.shipped())
    arguments = case.required()
    works(DEFAULTS, BARE, arguments)
    for setting in SETTINGS[case.kind]:
        name = f"+ {setting.name}"
        if setting.needs and importlib.util.find_spec(setting.needs) is None:
            case.failed[name] = f"{setting.needs} is not installed"
        elif works(name, RECIPE, {**arguments, **setting.arguments}):
            arguments = {**arguments, **setting.arguments}
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name in order.sample(list(programs), len(programs)):
            measured[name].append(vars(Speed.of(run_alone(programs[name]), sequences[name])))
    return measured


def sequences_of(arguments: Mapping[str, Any]) -> int:
    """Return the rows or completions of an optimizer step on one process."""
    return int(arguments.get("per_device_train_batch_size", 8) * arguments.get("gradient_accumulation_steps", 1))


def ratios(runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the ratio of tokens per second in each round."""
    return [one["tokens"] / other["tokens"] for one, other in zip(runs, others, strict=True)]
