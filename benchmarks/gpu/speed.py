"""Tokens a second: the shipped configs beside TRL's own script, and from TRL's defaults up, one setting at a time."""

from __future__ import annotations

import importlib.util
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.programs import WARM_UP, Observed, Program, run_alone
from benchmarks.common.recipe_runs import ROOT, RunFailed
from benchmarks.common.scripts import BARE, RECIPE, training

# What a config says of the run, not of how fast it goes; and the generation by vLLM, which is a rung of its own.
_LEFT_OUT = {
    *("dataset_config", "num_train_epochs", "warmup_steps", "eval_strategy", "eval_steps", "lr_scheduler_kwargs"),
    *("use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "save_steps", "save_total_limit"),
}
# TRL's script knows neither our rewards nor our schedules.
REWARD = "benchmarks.common.recipe_runs.share_of_digits"
_FIXED: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
}
_ON_CPU: dict[str, Any] = {"use_cpu": True, "bf16": False}
_TINY: dict[str, dict[str, Any]] = {"sft": {"max_length": 512}, "grpo": {"max_completion_length": 8}}
DEFAULTS = "TRL's defaults"


@dataclass(frozen=True)
class Rung:
    """A setting that is added to those before it."""

    name: str
    given: Mapping[str, Any]
    needs: str | None = None
    """A package."""


_WEIGHTS = Rung("weights in bf16 (other numerics)", {"dtype": "bfloat16"})
_FLASH = Rung("kernels: flash attention", {"attn_implementation": "flash_attention_2"}, "flash_attn")
_LIGER = Rung("kernels: liger", {"use_liger_kernel": True}, "liger_kernel")
_NO_CHECKPOINTING = Rung("no gradient checkpointing", {"gradient_checkpointing": False})
LADDERS = {
    "sft": (
        _NO_CHECKPOINTING,
        _WEIGHTS,
        _FLASH,
        _LIGER,
        # Behind flash attention: others compute all pairs of the tokens of a batch, now in one row, and mask most.
        Rung("packing", {"packing": True}),
        Rung("batch shape: 16 a process", {"per_device_train_batch_size": 16}),
    ),
    "grpo": (
        _NO_CHECKPOINTING,
        _WEIGHTS,
        _FLASH,
        _LIGER,
        Rung("vLLM on the same GPU", {"use_vllm": True, "vllm_mode": "colocate"}, "vllm"),
        Rung("batch shape: 64 completions a process", {"per_device_train_batch_size": 64}),
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
    """Why a training could not be measured."""

    def shipped(self) -> dict[str, Any]:
        """The arguments of the config that is shipped for it, as far as TRL's script takes them."""
        file = ROOT / "recipes" / "configs" / f"qwen2.5-{self.size}_gsm8k_{self.kind}.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {key: value for key, value in config.items() if key not in _LEFT_OUT} | self._own()

    def defaults(self) -> dict[str, Any]:
        """What a script cannot do without: all else is TRL's."""
        return self._own()

    def _own(self) -> dict[str, Any]:
        return {
            "model_name_or_path": str(self.model),
            "dataset_name": str(self.rows / self.kind),
            "max_steps": self.steps,
            **({"reward_funcs": [REWARD]} if self.kind == "grpo" else {}),
            **_FIXED,
            **(_ON_CPU if self.device == "cpu" else {}),
            **(_TINY[self.kind] if self.tiny else {}),
        }


@dataclass(frozen=True)
class Speed:
    """What one run shows."""

    tokens: float
    """Tokens a second, padding not counted: in SFT all that are read, in GRPO prompts and completions."""
    step: float
    """Seconds, the median."""
    length: float
    """Tokens of a sequence, or of a packed row, the mean."""
    peak_bytes: int
    losses: list[float]

    @classmethod
    def of(cls, observed: Observed, sequences: int) -> Speed:
        """By the steps after `WARM_UP`; `sequences` are those of a step."""
        counted = observed.logged("num_tokens")
        walls = [step.wall for step in observed.steps]
        tokens = counted[-1] - counted[WARM_UP - 1]
        steps = len(walls) - WARM_UP
        peak = observed.record["gpu_bytes"] or observed.peak_bytes
        pace, step = tokens / sum(walls[WARM_UP:]), statistics.median(walls[WARM_UP:])
        return cls(pace, step, tokens / steps / sequences, peak, observed.logged("loss"))


def measure_speed(case: Case, folder: Path, rounds: int, order: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Of each training by name, what its runs showed, one a round, in an order that is shuffled anew for each.

    All run once before, which is not counted: that fills caches, and shows which settings work here.
    """
    given: dict[str, dict[str, Any]] = {}
    programs: dict[str, Program] = {}

    def works(name: str, script: str, arguments: dict[str, Any]) -> bool:
        program = training(script, case.kind, folder / f"{case.size}-{case.kind}-{len(given)}", arguments)
        given[name] = arguments
        try:
            run_alone(program, environment={})
        except RunFailed as error:
            case.failed[name] = str(error).splitlines()[-1]
            return False
        programs[name] = program
        return True

    for script in (BARE, RECIPE):
        works(f"shipped config, {script}", script, case.shipped())
    settings = case.defaults()
    works(DEFAULTS, BARE, settings)
    for rung in LADDERS[case.kind]:
        if rung.needs and importlib.util.find_spec(rung.needs) is None:
            case.failed[f"+ {rung.name}"] = f"{rung.needs} is not installed"
        elif works(f"+ {rung.name}", RECIPE, {**settings, **rung.given}):
            settings = {**settings, **rung.given}
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name in order.sample(list(programs), len(programs)):
            observed = run_alone(programs[name], environment={})
            measured[name].append(vars(Speed.of(observed, sequences_of(given[name]))))
    return measured


def sequences_of(given: Mapping[str, Any]) -> int:
    """Rows, or completions, of an optimizer step on one process."""
    return int(given.get("per_device_train_batch_size", 8) * given.get("gradient_accumulation_steps", 1))


def ratios(runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[float]:
    """How many times as many tokens a second as the others, round by round."""
    return [one["tokens"] / other["tokens"] for one, other in zip(runs, others, strict=True)]
