"""The three recipes train on the planned learning rates, resume exactly, and reject wrong runs before they start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from click.testing import CliRunner
from packaging.version import Version
from trl import ModelConfig

import hf_sched
from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from hf_sched.audit import audit
from hf_sched.cli import app
from hf_sched.finetune.pipeline import check_model
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.recipes import BASE, CAN_BE_EARNED, FSDP2, ONE_PROCESS, TWO_PROCESSES, ZERO2, needs_compiler

STEPS = 12
SCHEDULES = {
    "cosine_floor": {"floor_ratio": 0.1},
    "warmup_cosine": {"warmup": 3, "warmup_shape": "cosine", "min_lr": "1e-5"},
    "cosine_restarts": {"num_cycles": 2, "cycle_multiplier": 2, "peak_multiplier": 0.5, "floor_ratio": 0.1},
}
SAVING = {"save_strategy": "steps", "save_steps": 6}


def requested(name: str) -> dict[str, object]:
    return {
        "lr_scheduler_type": name,
        "lr_scheduler_kwargs": SCHEDULES[name],
        "warmup_steps": 0 if name == "warmup_cosine" else 2,
        "max_steps": STEPS,
    }


def planned(recipe: str, name: str) -> np.ndarray:
    warmup = requested(name)["warmup_steps"]
    schedule = hf_sched.build(name, num_training_steps=STEPS, num_warmup_steps=warmup, **SCHEDULES[name])
    return schedule.curve(peak=BASE[recipe]["learning_rate"])


@pytest.mark.parametrize(
    ("recipe", "name"),
    [("sft", "warmup_cosine"), ("grpo", "cosine_restarts"), ("dpo", "cosine_floor")],
)
def test_one_and_two_processes_train_on_the_planned_rates(run_recipe, recipe, name):
    # The same effective batch size: 8 x 1 x 2 = 4 x 2 x 2.
    given = {"gradient_accumulation_steps": 2, **requested(name)}
    one = run_recipe(recipe, name="one", **given)
    two = run_recipe(recipe, TWO_PROCESSES, name="two", per_device_train_batch_size=4, **given)
    assert (one.args.world_size, two.args.world_size) == (1, 2)
    np.testing.assert_allclose(one.logged("learning_rate"), planned(recipe, name), rtol=1e-12)
    np.testing.assert_array_equal(two.logged("learning_rate"), one.logged("learning_rate"))
    assert min(one.logged("learning_rate")) > 0
    if recipe != "grpo":
        np.testing.assert_allclose(two.logged("loss"), one.logged("loss"), rtol=1e-4)
    for run in (one, two):
        rows = [row for row in read_learning_rates(run.folder / LEARNING_RATES) if "step" in row]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))  # once, on any number of processes
        report = audit(run.folder)
        assert report.ok, report.lines
        assert report.deviation == 0
    # Only the main process shows progress: a line per step of so short a run.
    assert [two.output.count(f" {step}/{STEPS} [") for step in (1, STEPS)] == [1, 1]
    assert "FutureWarning" not in one.output


# SFT and GRPO: checkpoints/test_sharding.py.
@pytest.mark.slow
@pytest.mark.parametrize("launcher", [pytest.param(ZERO2, marks=needs_compiler), FSDP2], ids=["zero2", "fsdp2"])
def test_sharded_dpo_trains_on_the_planned_rates(run_recipe, launcher):
    sharded = run_recipe("dpo", launcher, **requested("cosine_floor"))
    assert sharded.args.world_size == 2
    np.testing.assert_allclose(sharded.logged("learning_rate"), planned("dpo", "cosine_floor"), rtol=1e-12)
    assert (sharded.folder / "model.safetensors").stat().st_size > 10_000
    assert len(sharded.logged("learning_rate")) == STEPS


@pytest.mark.parametrize("launcher", [ONE_PROCESS, pytest.param(TWO_PROCESSES, marks=pytest.mark.slow)], ids=["1", "2"])
@pytest.mark.parametrize("recipe", BASE)
def test_resumed_run_equals_an_uninterrupted_one(run_recipe, recipe, launcher):
    if launcher == TWO_PROCESSES and Version(transformers.__version__) < Version("5.18"):
        pytest.skip("before 5.18 transformers cannot load an optimizer's state on two processes without a GPU (cpu:0)")
    given = {**SAVING, **requested("cosine_floor")}
    if recipe == "grpo":
        given |= CAN_BE_EARNED
    whole = run_recipe(recipe, launcher, **given)
    assert np.count_nonzero(whole.logged("loss")) == STEPS
    checkpoint = str(whole.folder / "checkpoint-6")
    resumed = run_recipe(recipe, launcher, name="resumed", resume_from_checkpoint=checkpoint, **given)
    np.testing.assert_array_equal(resumed.logged("learning_rate"), whole.logged("learning_rate"))
    np.testing.assert_array_equal(resumed.logged("loss"), whole.logged("loss"))
    assert (resumed.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def few_rows(task: Path, recipe: str, folder: Path, rows: int) -> str:
    lines = (task / recipe / "train.jsonl").read_text().splitlines(keepends=True)
    path = folder / f"{recipe}-few.jsonl"
    path.write_text("".join(lines[:rows]))
    return str(path)


@pytest.mark.parametrize(
    ("recipe", "rows", "streaming"), [("sft", 36, False), ("grpo", 10, False), ("dpo", 36, False), ("sft", 36, True)]
)
def test_run_resumed_in_the_second_epoch_equals_an_uninterrupted_one(
    run_recipe, task, tmp_path, recipe, rows, streaming
):
    # 5 steps per epoch; a pass over 36 streamed rows ends within a batch of 8.
    given = {**requested("cosine_floor"), "save_strategy": "steps", "save_steps": 8, "dataset_streaming": streaming}
    given["dataset_name"] = few_rows(task, recipe, tmp_path, rows)
    if recipe == "grpo":
        given |= CAN_BE_EARNED
    whole = run_recipe(recipe, **given)
    checkpoint = str(whole.folder / "checkpoint-8")
    resumed = run_recipe(recipe, name="resumed", resume_from_checkpoint=checkpoint, **given)
    np.testing.assert_array_equal(resumed.logged("loss"), whole.logged("loss"))
    assert (resumed.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("recipe", BASE)
def test_lora_plan_check_and_report_work_for_every_recipe(run_recipe, recipe, tmp_path):
    lora = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
    run = run_recipe(recipe, **lora, **SAVING, **requested("cosine_floor"))
    np.testing.assert_allclose(run.logged("learning_rate"), planned(recipe, "cosine_floor"), rtol=1e-12)
    assert (run.folder / "adapter_model.safetensors").is_file()

    config, report = str(tmp_path / "run.yaml"), tmp_path / "report.md"
    for words in (
        ["plan", config, "--kind", recipe],
        ["check", config, "--kind", recipe],
        ["report", str(run.folder), "--output", str(report)],
    ):
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert words[0] != "plan" or f"{recipe}, {STEPS} optimizer steps" in result.output
    assert "cosine_floor" in report.read_text()


def test_cooldown_branches_off_a_checkpoint(run_recipe):
    given = {**requested("cosine_floor"), "lr_scheduler_type": "wsd", "lr_scheduler_kwargs": None}
    parent = run_recipe("sft", name="parent", **SAVING, **given)
    branch = {"anneal_from": str(parent.folder / "checkpoint-6"), "anneal_duration": "4", "anneal_shape": "linear"}
    rates = run_recipe("sft", name="cooled", **given, **branch).logged("learning_rate")
    assert rates[:6] == parent.logged("learning_rate")[:6]
    np.testing.assert_allclose(rates[6:], BASE["sft"]["learning_rate"] * np.array([0.75, 0.5, 0.25, 0]), rtol=1e-12)


@pytest.mark.slow
def test_trust_ratios_under_deepspeed_are_rejected_before_the_model_is_loaded(run_recipe):
    given = {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {"warmup": 8}, "max_steps": STEPS}
    rejected = run_recipe("sft", ZERO2, ok=False, model_name_or_path="nowhere", **given)
    assert "gradient, which DeepSpeed does not provide" in rejected.output
    assert "nowhere" not in rejected.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "`model_name_or_path` must be given"),
        ("runs/nothing", "must be a hub name or the folder of a model, received 'runs/nothing'"),
        ("empty", "must be a hub name or the folder of a model, received"),
        ("lora", "not a LoRA adapter, received 'lora'; run `hf-sched merge lora --output lora_merged`"),
    ],
)
def test_missing_model_is_named(tmp_path: Path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "lora"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    with pytest.raises(ArgumentError, match=message):
        check_model(ModelConfig(model_name_or_path=name))
