"""Estimates beside what the kernel counted while the recipes trained, on a CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from hf_sched.finetune.memory import Estimate, estimate
from hf_sched.finetune.memory.command import settings_of_file
from tests.helpers.recipes import FSDP2, ROOT, TWO_PROCESSES, ZERO2, ZERO3, finish

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
SHORT = {**SFT, "per_device_train_batch_size": 1, "max_length": 64}  # so that weights, and what comes of them, are most
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
SPREAD: dict[str, tuple[list[str], dict[str, Any]]] = {
    "DDP": (TWO_PROCESSES, SHORT),
    "FSDP2": (FSDP2, SHORT),
    "ZeRO-2": (ZERO2, SHORT),
    "ZeRO-2, accumulated": (ZERO2, {**SHORT, "gradient_accumulation_steps": 2}),
    "ZeRO-3": (ZERO3, SHORT),
    "ZeRO-3, bf16": (ZERO3, {**SHORT, "bf16": True}),
    "ZeRO-3, LoRA": (ZERO3, {**SHORT, **LORA}),
}
# What does not depend on the run: what gloo and, most of all, DeepSpeed load and keep.
BESIDE = {"DDP": 64 * 2**20, "FSDP2": 64 * 2**20, "ZeRO-2": 128 * 2**20, "ZeRO-3": 128 * 2**20}


def make_materials(folder: Path, **shape: int) -> Path:
    """A Llama of random weights, and data that fill every row."""
    from hf_sched.finetune.demo.sorting_task import save_model

    save_model(folder / "model", layers=1, width=16, seed=0)  # for its tokenizer
    tokens = json.loads((folder / "model" / "config.json").read_text())
    config = LlamaConfig(
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokens["eos_token_id"],
        pad_token_id=tokens["pad_token_id"],
        **shape,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    for kind, row in (("sft", {"text": "3" * 2000}), ("grpo", {"prompt": "3" * 100, "answer": "3"})):
        (folder / kind).mkdir()
        (folder / kind / "train.jsonl").write_text((json.dumps(row) + "\n") * 16)
    return folder


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """15M weights with a vocabulary of 32k."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"vocab_size": 32768, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}
    return make_materials(tmp_path_factory.mktemp("materials"), **sizes, **heads)


def configure(file: Path, recipe: str, materials: Path, given: dict[str, Any]) -> None:
    arguments = {
        "model_name_or_path": str(materials / "model"),
        "dataset_name": str(materials / recipe),
        "output_dir": str(file.parent / "run"),
        **{"use_cpu": True, "bf16": False, "save_strategy": "no", "report_to": "none", "max_steps": 2},
        **given,
    }
    file.write_text(yaml.safe_dump(arguments))


def measure(names: list[str], materials: Path, folder: Path) -> list[tuple[int, Estimate]]:
    """Bytes that each case took beyond what there was before its model, and the estimate."""
    command = [sys.executable, "tests/helpers/launchers/measured_recipes.py", str(folder / "out.json")]
    estimates = []
    for name in names:
        recipe, given = CASES[name]
        config = folder / f"{name}.yaml"
        configure(config, recipe, materials, given)
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


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="DeepSpeed compiles an operator when first used")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc to measure memory")
def test_what_each_of_several_processes_takes_is_near_the_estimate(tmp_path, tmp_path_factory):
    """51M weights, two processes, so that a copy of a part of them is seen: 98 MiB in float32."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    sizes = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12}
    materials = make_materials(tmp_path_factory.mktemp("wide"), **sizes, **heads)
    lines, wrong = [], []
    for name, (launcher, given) in SPREAD.items():
        folder = tmp_path / name
        folder.mkdir()
        file = folder / "config.yaml"
        configure(file, "sft", materials, given)
        command = ["tests/helpers/launchers/measured_recipes.py", str(folder / "out.json"), "recipes/sft.py", str(file)]
        done = finish(launcher, command, folder)
        # The first process estimates while the others go on, and the training is not disturbed by it.
        assert "Memory of each process" in done.output, done.output[-4000:]
        (measured,) = json.loads((folder / "out.1.json").read_text())  # the other writes the whole model, too
        taken = measured["peak"] - measured["before"]
        guess = estimate(settings_of_file(str(file), accelerate_config=str(ROOT / launcher[0])))
        lines.append(
            f"{name}: measured {taken / 2**20:.0f} MiB, estimated {guess.total / 2**20:.0f} in the {guess.peak.name}, "
            f"ratio {guess.total / taken:.2f}"
        )
        if not -0.05 * taken <= taken - guess.total <= 0.05 * taken + BESIDE[guess.settings.spread.kind]:
            wrong.append(lines[-1])
    print("\n".join(lines))
    assert not wrong, lines
