"""Pasted configurations of other programs are read as the arguments of their Trainer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml

from hf_sched.designer.other_programs import read_pasted
from hf_sched.designer.page import findings_text
from hf_sched.designer.start import design_of
from hf_sched.integrations import builtin_schedules

LLAMA_FACTORY = {
    "stage": "sft",
    "finetuning_type": "lora",
    "template": "qwen3",
    "deepspeed": "examples/deepspeed/ds_z3_config.json",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "learning_rate": 1e-4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "cutoff_len": 2048,
}
AXOLOTL = {
    "base_model": "NousResearch/Llama-3.2-1B",
    "datasets": [{"path": "teknium/GPT4-LLM-Cleaned", "type": "alpaca"}],
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_epochs": 1,
    "learning_rate": 2e-4,
    "lr_scheduler": "cosine",
    "sample_packing": True,
}


def read(config: dict, dataset_size: int = 1000, **more: object):
    return read_pasted(yaml.safe_dump({**config, **more}), dataset_size=dataset_size)


def builtin(name: str, steps: int, warmup: int, peak: float, **arguments: object) -> list[float]:
    run = {"num_training_steps": steps, "num_warmup_steps": warmup, "peak": peak}
    return builtin_schedules.curve(name, arguments, **run).tolist()


def test_llama_factory_warmup_ratio_is_a_share_of_the_run():
    pasted = read(LLAMA_FACTORY)
    assert (pasted.program, pasted.problem, pasted.plan.effective_batch) == ("LLaMA-Factory", "", 8)
    assert pasted.plan.curve.tolist() == builtin("cosine", 375, 38, 1e-4)
    assert "Read as **LLaMA-Factory**: no errors, no warnings." in findings_text(pasted)


def test_llama_factory_decays_over_two_thirds_of_warmup_stable_decay():
    plan = read(LLAMA_FACTORY, lr_scheduler_type="warmup_stable_decay", max_steps=100).plan
    assert plan.curve.tolist() == builtin("warmup_stable_decay", 100, 10, 1e-4, num_stable_steps=30, num_decay_steps=60)


def test_axolotl_warms_up_for_3_percent_by_default():
    plan = read(AXOLOTL).plan
    assert plan.curve.tolist() == builtin("cosine", 250, 7, 2e-4)
    assert read(AXOLOTL, dataset_size=100_000).plan.num_warmup_steps == 100
    assert read(AXOLOTL, warmup_ratio=0.05).plan.num_warmup_steps == 12
    assert read(AXOLOTL, warmup_steps=1).plan.num_warmup_steps == 2


def test_axolotl_cosine_with_a_floor():
    # The formula of axolotl's own function.
    progress = (np.arange(250) - 7) / (250 - 7)
    factor = [(1 - 0.1) * 0.5 * (1 + math.cos(math.pi * p)) + 0.1 if p >= 0 else (7 + 243 * p) / 7 for p in progress]
    curve = read(AXOLOTL, cosine_min_lr_ratio=0.1).plan.curve
    np.testing.assert_allclose(curve, 2e-4 * np.array(factor), rtol=1e-12)


def test_axolotl_takes_our_schedules():
    form, schedule = design_of(read(AXOLOTL, lr_scheduler="wsd", lr_scheduler_kwargs={"decay": "10%"}))
    assert (schedule.name, dict(schedule.arguments)) == ("wsd", {"decay": "10%"})
    assert (form.per_device_train_batch_size, form.warmup_steps, form.num_train_epochs) == (2, 7, 1.0)


@pytest.mark.parametrize("key, value", [("lr_scheduler", "rex"), ("lr_quadratic_warmup", True)])
def test_schedule_of_axolotl_alone_is_named(key, value):
    with pytest.raises(ValueError, match=f"`{key}` selects a schedule of axolotl's own"):
        read(AXOLOTL, **{key: value})


def test_trl_configuration_has_its_findings_with_lines():
    pasted = read_pasted("max_length: 512\nevaluation_strategy: steps\nmax_steps: 10\nlearning_rate: 1e-4\n")
    assert (pasted.program, pasted.plan.num_training_steps) == ("sft", 10)
    assert "| 2 | error | `evaluation_strategy` |" in findings_text(pasted)


def test_length_that_is_unknown_is_the_problem():
    pasted = read_pasted("max_length: 512\ndataset_name: org/data\n")
    assert pasted.plan is None and "number of optimizer steps is unknown" in findings_text(pasted)


@pytest.mark.parametrize("text", ["just text", "a: [", ""])
def test_text_that_is_no_configuration_is_an_error(text):
    with pytest.raises(ValueError, match=r"^(must be a mapping|does not parse)"):
        read_pasted(text)
