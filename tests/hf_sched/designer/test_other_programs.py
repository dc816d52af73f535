"""Pasted configurations of other programs are read as the arguments of their Trainer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml

from hf_sched.designer.other_programs import NoPlanError, read_pasted
from hf_sched.integrations import builtin_schedules
from hf_sched.plan import Plan, plan
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.reference.named_schedule import NamedSchedule

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


def read(config: dict, dataset_size: int = 1000, **more: object) -> Plan:
    """The plan of the run and the schedule that the page shows for a configuration."""
    _, form, design = read_pasted(yaml.safe_dump({**config, **more}), dataset_size)
    return form.plan(NamedSchedule(*design))


def builtin(name: str, steps: int, warmup: int, peak: float, **arguments: object) -> list[float]:
    run = {"num_training_steps": steps, "num_warmup_steps": warmup, "peak": peak}
    return builtin_schedules.curve(name, arguments, **run).tolist()


def test_llama_factory_warmup_ratio_is_a_share_of_the_run():
    plan = read(LLAMA_FACTORY)
    assert (plan.effective_batch, plan.curve.tolist()) == (8, builtin("cosine", 375, 38, 1e-4))
    assert read_pasted(yaml.safe_dump(LLAMA_FACTORY), 1000)[0].startswith("Read as **LLaMA-Factory**: no errors")


def test_llama_factory_decays_over_two_thirds_of_warmup_stable_decay():
    plan = read(LLAMA_FACTORY, lr_scheduler_type="warmup_stable_decay", max_steps=100)
    assert plan.curve.tolist() == builtin("warmup_stable_decay", 100, 10, 1e-4, num_stable_steps=30, num_decay_steps=60)


def test_axolotl_warms_up_for_3_percent_by_default():
    assert read(AXOLOTL).curve.tolist() == builtin("cosine", 250, 7, 2e-4)
    assert read(AXOLOTL, dataset_size=100_000).num_warmup_steps == 100
    assert read(AXOLOTL, warmup_ratio=0.05).num_warmup_steps == 12
    assert read(AXOLOTL, warmup_steps=1).num_warmup_steps == 2


def test_axolotl_cosine_with_a_floor():
    # The formula of axolotl's own function.
    progress = (np.arange(250) - 7) / (250 - 7)
    factor = [(1 - 0.1) * 0.5 * (1 + math.cos(math.pi * p)) + 0.1 if p >= 0 else (7 + 243 * p) / 7 for p in progress]
    curve = read(AXOLOTL, cosine_min_lr_ratio=0.1).curve
    np.testing.assert_allclose(curve, 2e-4 * np.array(factor), rtol=1e-12)


def test_axolotl_takes_our_schedules():
    config = {**AXOLOTL, "lr_scheduler": "wsd", "lr_scheduler_kwargs": {"decay": "10%"}}
    _, form, design = read_pasted(yaml.safe_dump(config), 1000)
    assert design == ("wsd", {"decay": "10%"})
    assert (form.per_device_train_batch_size, form.warmup_steps, form.num_train_epochs) == (2, 7, 1.0)


@pytest.mark.parametrize("key, value", [("lr_scheduler", "rex"), ("lr_quadratic_warmup", True)])
def test_schedule_of_axolotl_alone_is_named(key, value):
    with pytest.raises(ValueError, match=f"`{key}` selects a schedule of axolotl's own"):
        read(AXOLOTL, **{key: value})


def test_trl_configuration_has_its_findings_with_lines():
    text = "max_length: 512\nevaluation_strategy: steps\nmax_steps: 10\nlearning_rate: 1e-4\n"
    findings, form, _ = read_pasted(text)
    assert findings.startswith("Read as **sft**: ") and "| 2 | error | `evaluation_strategy` |" in findings
    assert form.max_steps == 10


def test_configuration_without_a_plan_has_its_findings():
    with pytest.raises(NoPlanError, match="lr_scheduler_type") as caught:
        read_pasted("max_length: 512\nevaluation_strategy: steps\nmax_steps: 10\nlr_scheduler_type: cosin_floor\n")
    assert "| 2 | error | `evaluation_strategy` |" in caught.value.findings


@pytest.mark.parametrize(
    "given, steps",
    [
        ({"max_length": 8, "max_steps": 70}, 70),
        ({"max_length": 8, "num_train_epochs": 1.5, "warmup_steps": 0.1}, None),
        ({"num_generations": 4, "per_device_train_batch_size": 8}, 165),  # GRPO: the form has no generations
    ],
)
def test_form_of_a_configuration_plans_the_same_run(given, steps, tmp_path):
    text = yaml.safe_dump({"lr_scheduler_type": "cosine_floor", "learning_rate": 1e-4, **given})
    path = tmp_path / "run.yaml"
    path.write_text(text)
    planned = plan(TrainingConfig.read(path), dataset_size=333, num_processes=3)
    _, form, design = read_pasted(text, 333, 3)
    again = form.plan(NamedSchedule(*design))
    assert form.max_steps == steps
    assert (again.curve.tolist(), again.world_size.processes) == (planned.curve.tolist(), 3)


@pytest.mark.parametrize(
    "text, message",
    [
        ("just text", "^must be a mapping"),
        ("a: [", "^does not parse"),
        ("max_length: 512\ndataset_name: org/data\n", "number of optimizer steps is unknown"),
    ],
)
def test_text_without_a_plan_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        read_pasted(text)
