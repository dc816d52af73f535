"""Tokens per second of the shipped config and of TRL's own script, and what each setting adds to TRL's defaults."""

from __future__ import annotations

import importlib.util
import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from benchmarks.common.programs import BARE, RECIPE, WARM_UP, Observed, Program, run_alone, training
from benchmarks.common.task import ON_CPU, REWARD, ROOT, RunFailed

# Keys that say nothing about speed, and generation by vLLM, which is a separate setting below.
_LEFT_OUT = {
    *("dataset_config", "num_train_epochs", "warmup_steps", "eval_strategy", "eval_steps", "lr_scheduler_kwargs"),
    *("use_vllm", "vllm_mode", "vllm_gpu_memory_utilization", "save_steps", "save_total_limit"),
}
# TRL's script knows neither our rewards nor our schedules.
_FIXED = {"lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no", "report_to": "none"}
_TINY: dict[str, dict[str, Any]] = {"sft": {"max_length": 512}, "grpo": {"max_completion_length": 8}}
DEFAULTS = "TRL's defaults"
SHIPPED = {script: f"shipped config, {script}" for script in (BARE, RECIPE)}


@dataclass(frozen=True)
class Setting:
    """Arguments that are added to those of the settings before; `needs` is a package."""

    name: str
    arguments: dict[str, Any]
    needs: str | None = None


_SHARED = (
    Setting("+ no gradient checkpointing", {"gradient_checkpointing": False}),
    Setting("+ weights in bf16 (other numerics)", {"dtype": "bfloat16"}),
    Setting("+ kernels: flash attention", {"attn_implementation": "flash_attention_2"}, "flash_attn"),
    Setting("+ kernels: liger", {"use_liger_kernel": True}, "liger_kernel"),
)
SETTINGS = {
    "sft": (
        *_SHARED,
        # After flash attention: other kernels compute all pairs of tokens in the packed row and mask most of them.
        Setting("+ packing", {"packing": True}),
        Setting("+ batch shape: 16 a process", {"per_device_train_batch_size": 16}),
    ),
    "grpo": (
        *_SHARED,
        Setting("+ vLLM on the same GPU", {"use_vllm": True, "vllm_mode": "colocate"}, "vllm"),
        Setting("+ batch shape: 64 completions a process", {"per_device_train_batch_size": 64}),
    ),
}


def required_arguments(kind: str, model: Path, rows: Path, steps: int, tiny: bool) -> dict[str, Any]:
    """Return the arguments without which a script cannot run; everything else is TRL's default."""
    return {
        "model_name_or_path": str(model),
        "dataset_name": str(rows / kind),
        "max_steps": steps,
        **({"reward_funcs": [REWARD]} if kind == "grpo" else {}),
        **_FIXED,
        **({**ON_CPU, **_TINY[kind]} if tiny else {}),
    }


def shipped_arguments(kind: str) -> dict[str, Any]:
    """Return the arguments of the shipped config that TRL's script also accepts."""
    file = ROOT / "recipes" / "configs" / f"qwen2.5-0.5b_gsm8k_{kind}.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if key not in _LEFT_OUT}


def figures(observed: Observed) -> dict[str, Any]:
    """Return the figures of a run from the steps after `WARM_UP`; `step` is the median, in seconds.

    Tokens are counted without padding: all that are read in SFT, prompts and completions in GRPO.
    """
    counted = observed.logged("num_tokens")
    walls = [step.wall for step in observed.steps[WARM_UP:]]
    return {
        "tokens_per_second": (counted[-1] - counted[WARM_UP - 1]) / sum(walls),
        "step": median(walls),
        "peak_bytes": observed.record["gpu_bytes"] or observed.peak_bytes,
        "losses": observed.logged("loss"),
    }


def measure_speed(
    kind: str, required: dict[str, Any], folder: Path, rounds: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    """Return the figures of each training, one entry per round in shuffled order, and what could not be measured.

    Every training runs once before, uncounted: this fills caches and shows which settings work here.
    """
    programs: dict[str, Program] = {}
    failed: dict[str, str] = {}

    def works(name: str, script: str, arguments: dict[str, Any]) -> bool:
        program = training(script, kind, folder / f"{kind}-{len(programs) + len(failed)}", arguments)
        try:
            run_alone(program)
        except RunFailed as error:
            failed[name] = str(error).splitlines()[-1]
            return False
        programs[name] = program
        return True

    for script, name in SHIPPED.items():
        works(name, script, shipped_arguments(kind) | required)
    works(DEFAULTS, BARE, required)
    arguments = required
    for setting in SETTINGS[kind]:
        if setting.needs and importlib.util.find_spec(setting.needs) is None:
            failed[setting.name] = f"{setting.needs} is not installed"
        elif works(setting.name, RECIPE, arguments | setting.arguments):
            arguments = arguments | setting.arguments
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(programs), len(programs)):
            measured[name].append(figures(run_alone(programs[name])))
    return measured, failed


def measure_matrix_rate(device: str, seconds: float = 2.0) -> float:
    """Return the highest FLOP/s of a square bf16 matrix product within some seconds."""
    size = 8192 if device == "cuda" else 256
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
