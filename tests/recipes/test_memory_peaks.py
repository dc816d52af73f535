"""Estimates beside what the kernel counted while the recipes trained, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from transformers import LlamaConfig, LlamaForCausalLM

from footprint import Estimate, estimate
from memory import settings_of_file

# What is not counted lies between: oneDNN's work space, Python objects, pages of the data set, the heap's slack.
SLACK = 48 * 2**20
TOLERANCE = 0.15

PROMPT = 132  # tokens of the prompts below, as memory.py takes them: the longest text and what a template may add
SFT = {"per_device_train_batch_size": 2, "max_length": 256, "gradient_checkpointing": False}
GRPO = {
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 100,
    "gradient_checkpointing": False,
    "reward_funcs": ["exact_answer"],
}
LORA = {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("sft", SFT),
    "checkpointing": ("sft", {**SFT, "gradient_checkpointing": True}),
    "lora": ("sft", {**SFT, **LORA}),
    "twice the batch": ("sft", {**SFT, "per_device_train_batch_size": 4}),
    "twice the length": ("sft", {**SFT, "max_length": 512}),
    "accumulated": ("sft", {**SFT, "gradient_accumulation_steps": 2}),
    "adafactor": ("sft", {**SFT, "optim": "adafactor"}),
    "grpo": ("grpo", GRPO),
    "grpo with a reference": ("grpo", {**GRPO, "beta": 0.1}),
}


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 15M random weights with a vocabulary of 32k, and data that fill every row."""
    from sorting_task import save_model

    folder = tmp_path_factory.mktemp("materials")
    save_model(folder / "model", layers=1, width=16, seed=0)  # for its tokenizer
    tokens = json.loads((folder / "model" / "config.json").read_text())
    config = LlamaConfig(
        vocab_size=32768,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokens["eos_token_id"],
        pad_token_id=tokens["pad_token_id"],
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    for kind, row in (("sft", {"text": "3" * 2000}), ("grpo", {"prompt": "3" * 100, "answer": "3"})):
        (folder / kind).mkdir()
        (folder / kind / "train.jsonl").write_text((json.dumps(row) + "\n") * 16)
    return folder


def measure(names: list[str], materials: Path, folder: Path) -> list[tuple[int, Estimate]]:
    """Bytes that each case took beyond what there was before its model, and the estimate."""
    command = [sys.executable, "tests/launchers/measured_recipes.py", str(folder / "out.json")]
    estimates = []
    for name in names:
        recipe, given = CASES[name]
        config = folder / f"{name}.yaml"
        arguments = {
            "model_name_or_path": str(materials / "model"),
            "dataset_name": str(materials / recipe),
            "output_dir": str(folder / "run"),
            **{"use_cpu": True, "bf16": False, "save_strategy": "no", "report_to": "none", "max_steps": 2},
            **given,
        }
        config.write_text(yaml.safe_dump(arguments))
        command += [f"recipes/{recipe}.py", str(config)]
        estimates.append(estimate(settings_of_file(str(config), prompt=PROMPT)))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert done.stdout.count("Memory of each process") == len(names), done.stdout[-4000:]  # none was "not estimated"
    measured = json.loads((folder / "out.json").read_text())
    return [(one["peak"] - one["before"], found) for one, found in zip(measured, estimates, strict=True)]


def compare(names: list[str], materials: Path, folder: Path) -> None:
    found = measure(names, materials, folder)
    lines = [
        f"{name}: measured {taken / 2**20:.0f} MiB, estimated {guess.total / 2**20:.0f} in the {guess.peak.name}, "
        f"ratio {guess.total / taken:.2f}"
        for name, (taken, guess) in zip(names, found, strict=True)
    ]
    print("\n".join(lines))
    wrong = [
        line
        for line, (taken, guess) in zip(lines, found, strict=True)
        if abs(guess.total - taken) > TOLERANCE * taken + SLACK
    ]
    assert not wrong, lines


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to measure memory")
def test_the_estimate_is_near_the_measured_peak(materials, tmp_path):
    compare(["full"], materials, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to measure memory")
def test_the_estimate_is_near_the_measured_peak_of_every_kind_of_run(materials, tmp_path):
    compare([name for name in CASES if name != "full"], materials, tmp_path)
