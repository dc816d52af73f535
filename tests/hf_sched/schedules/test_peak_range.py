"""Usual peaks: they follow the published rules, contain the recipes they come from, and agree with docs/choosing.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_sched import ArgumentError
from hf_sched.schedules.peak_range import PeakRange, peak_range
from hf_sched.schedules.recommend import recommend

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
# Width and layers of the models of our configurations, and the processes of their launch lines.
MODELS = {
    "Qwen/Qwen2.5-0.5B-Instruct": (896, 24),
    "Qwen/Qwen2.5-1.5B-Instruct": (1536, 28),
    "runs/demo/task/model": (128, 2),
    "runs/demo/sft": (128, 2),
    "runs/smollm2/model": (576, 30),
    "runs/smollm2/merged": (576, 30),
}
PROCESSES = {"cpu_2proc": 2, "single_gpu": 1, "ddp": 8, "zero2": 8}


def of(task: str, **run: Any) -> PeakRange:
    return peak_range(task, **run)


@pytest.mark.parametrize(
    ("task", "peak", "run"),
    [
        # GPT-3 from 125M to 175B parameters, and the fit of arXiv 2503.04715 with 20 tokens per parameter.
        ("pretraining", 6e-4, {"width": 768, "layers": 12}),
        ("pretraining", 1.2e-4, {"width": 4096, "layers": 32}),
        ("pretraining", 6e-5, {"width": 12288, "layers": 96}),
        ("pretraining", 4.49 * 85e6**-0.406, {"width": 768, "layers": 12}),
        ("pretraining", 4.49 * 6.4e9**-0.406, {"width": 4096, "layers": 32}),
        # The defaults of TRL, for models of 1B to 8B parameters.
        *(("sft", 2e-5, {"width": width}) for width in (2048, 4096)),
        *((task, 1e-6, {"width": width}) for task in ("rl", "dpo") for width in (2048, 4096)),
        # The Zephyr recipes of the alignment handbook on Mistral-7B.
        ("dpo", 5e-7, {"width": 4096, "batch_size": 128}),
        ("dpo", 5e-6, {"width": 4096, "lora_r": 16, "lora_alpha": 16, "batch_size": 32}),
        ("sft", 2e-4, {"width": 4096, "lora_r": 16, "lora_alpha": 16, "batch_size": 64}),
        # The best of sweeps with LoRA on Tulu 3 (Tinker cookbook): Llama 3.2 1B and 3.1 8B.
        ("sft", 1e-3, {"width": 2048, "lora_r": 64, "batch_size": 128}),
        ("sft", 3e-4, {"width": 4096, "lora_r": 64, "batch_size": 128}),
        # GRPO with LoRA in TRL's guide, on SmolLM3-3B and Qwen3-0.6B.
        ("rl", 1e-5, {"width": 2048, "lora_r": 1}),
        ("rl", 5e-5, {"width": 1024, "lora_r": 1}),
    ],
)
def test_published_peaks_are_in_their_range(task: str, peak: float, run: dict[str, Any]) -> None:
    assert of(task, **run).times_outside(peak) == 1.0


def test_ranges_follow_the_published_rules() -> None:
    base = of("sft", width=2048, batch_size=64)
    assert (base.low, base.high) == (2e-6, 1e-4) and base.low < base.start < base.high

    def ratio(**run: Any) -> float:
        return of("sft", **{"width": 2048, "batch_size": 64, **run}).high / 1.05e-4

    near = {"rel": 0.06}  # the ends have one digit
    assert ratio(lora_r=8) == ratio(lora_r=256) == pytest.approx(10, **near)
    assert ratio(lora_r=16, lora_alpha=128) == pytest.approx(5, **near)
    assert ratio(lora_r=16, lora_alpha=32, use_rslora=True) == pytest.approx(5, **near)
    assert ratio(width=512) == pytest.approx(2, **near) and ratio(width=8192) == pytest.approx(0.5, **near)
    assert ratio(batch_size=256) == ratio(batch_size=4096) == pytest.approx(2, **near)
    assert ratio(batch_size=1) == pytest.approx(0.5, **near)
    lion = of("sft", width=2048, optimizer="lion")
    assert (lion.low, lion.high) == (2e-7, 3e-5) and of("sft", width=2048, optimizer="muon") == base
    assert of("pretraining", width=1024, layers=48).high < of("pretraining", width=1024, layers=12).high
    unknown = of("sft")
    assert unknown.low < of("sft", width=16384).low * 1.1 and unknown.high > of("sft", width=256).high * 0.9
    for task in ("classification", "cnn", "long"):
        assert recommend(task=task).peak is None
        with pytest.raises(LookupError):
            peak_range(task)
    assert [base.times_outside(peak) for peak in (2e-7, 1e-5, 1e-2)] == pytest.approx([10, 1, 100])


@pytest.mark.parametrize("wrong", [{"width": 0}, {"lora_alpha": -1, "lora_r": 8}, {"optimizer": "sgd"}])
def test_a_wrong_argument_of_a_run_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        recommend(task="sft", **wrong)
    assert caught.value.name in wrong


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_agree_with_the_recommendation_or_say_why_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    given = yaml.safe_load(text)
    (launch, task) = re.findall(r"accelerate_configs/(\w+)\.yaml recipes/(\w+)\.py", text)[0]
    width, layers = MODELS[given["model_name_or_path"]]
    batch = given["per_device_train_batch_size"] * given.get("gradient_accumulation_steps", 1) * PROCESSES[launch]
    lora = {name: given[name] for name in ("lora_r", "lora_alpha") if given.get("use_peft")}
    run = {"width": width, "layers": layers, "batch_size": batch, **lora}
    advice = recommend(task=task, num_training_steps=given.get("max_steps"), **run)
    if "max_steps" not in given:
        advice = recommend(task=task, num_training_steps=500, **run)  # about two epochs of GSM8K

    def explains(key: str) -> bool:
        comment = re.findall(rf"((?:^#.*\n)*)^{key}:", text, flags=re.MULTILINE)[0]
        return "`hf-sched recommend" in comment

    differs = given["lr_scheduler_type"] != advice.lr_scheduler_type
    assert explains("lr_scheduler_type") == differs
    assert not differs or advice.lr_scheduler_type in text
    assert advice.peak
    assert explains("learning_rate") == (advice.peak.times_outside(given["learning_rate"]) > 1.0)


def test_the_table_of_peaks_in_the_docs_agrees() -> None:
    section = DOCS.partition("## The peak learning rate")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| (\w+) \|$", section, flags=re.MULTILINE)
    assert [task for task, *_ in rows] == ["sft", "dpo", "rl"]
    for task, full, lora, evidence in rows:
        for shown, run in ((full, {}), (lora, {"lora_r": 16})):
            found = of(task, width=2048, batch_size=64, **run)
            assert shown.strip() == f"{found.low:.0e} to {found.high:.0e}"
            assert evidence == found.evidence
    for task in ("pretraining", "sft", "dpo", "rl"):
        for source in of(task, width=2048, lora_r=16).sources:
            assert source in DOCS, source
