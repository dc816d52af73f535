"""The learning rate of every optimizer step is the schedule's, in both recipes and however the work is spread."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import transformers
from packaging.version import Version

import hf_sched
from tests.helpers.recipes import FSDP2, GRPO, ONE_PROCESS, SFT, TWO_PROCESSES, ZERO2, ZERO3

STEPS = 12
PEAK = {"sft": SFT["learning_rate"], "grpo": GRPO["learning_rate"]}
SCHEDULES = {
    "cosine_floor": {"floor_ratio": 0.1},
    "warmup_cosine": {"warmup": 3, "warmup_shape": "cosine", "min_lr": "1e-5"},
    "cosine_restarts": {"num_cycles": 2, "cycle_multiplier": 2, "peak_multiplier": 0.5, "floor_ratio": 0.1},
}

# Half a minute each: the others are slow ones. Every schedule and every way to spread the work is tried here once.
QUICK = {
    ("sft", "cosine_floor"),
    ("sft", "warmup_cosine"),
    ("grpo", "cosine_restarts"),
    ("sft", "fsdp2"),
    ("sft", "zero2"),
    ("grpo", "zero3"),
}


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
    return schedule.curve(peak=PEAK[recipe])


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        pytest.param(recipe, name, marks=() if (recipe, name) in QUICK else pytest.mark.slow)
        for recipe in ("sft", "grpo")
        for name in SCHEDULES
    ],
)
def test_one_and_two_processes_train_on_the_planned_curve(run_recipe, recipe, name):
    # The same effective batch: 8 x 1 x 2 = 4 x 2 x 2.
    one = run_recipe(recipe, name="one", gradient_accumulation_steps=2, **requested(name))
    two = run_recipe(
        recipe,
        TWO_PROCESSES,
        name="two",
        gradient_accumulation_steps=2,
        per_device_train_batch_size=4,
        **requested(name),
    )
    assert one.args.world_size == 1
    assert two.args.world_size == 2
    np.testing.assert_allclose(one.logged("learning_rate"), planned(recipe, name), rtol=1e-12)
    np.testing.assert_array_equal(two.logged("learning_rate"), one.logged("learning_rate"))
    assert min(one.logged("learning_rate")) > 0
    if recipe == "sft":
        np.testing.assert_allclose(two.logged("loss"), one.logged("loss"), rtol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "launcher"),
    [
        pytest.param(recipe, launcher, id=f"{recipe}-{name}", marks=() if (recipe, name) in QUICK else pytest.mark.slow)
        for recipe in ("sft", "grpo")
        for name, launcher in {"fsdp2": FSDP2, "zero2": ZERO2, "zero3": ZERO3}.items()
    ],
)
def test_a_sharded_run_trains_on_the_planned_curve(run_recipe, recipe, launcher):
    if launcher != FSDP2 and not shutil.which("c++"):
        pytest.skip("DeepSpeed compiles an operator when first used: install a C++ compiler to run this")
    sharded = run_recipe(recipe, launcher, **requested("cosine_floor"))
    assert sharded.args.world_size == 2
    np.testing.assert_allclose(sharded.logged("learning_rate"), planned(recipe, "cosine_floor"), rtol=1e-12)
    assert (sharded.folder / "model.safetensors").stat().st_size > 10_000
    assert len(sharded.logged("learning_rate")) == STEPS


@pytest.mark.parametrize(
    ("recipe", "launcher"),
    [
        pytest.param("sft", ONE_PROCESS, id="sft-one process"),
        pytest.param("sft", TWO_PROCESSES, id="sft-two processes", marks=pytest.mark.slow),
        pytest.param("grpo", ONE_PROCESS, id="grpo-one process", marks=pytest.mark.slow),
        pytest.param("grpo", TWO_PROCESSES, id="grpo-two processes"),
    ],
)
def test_a_resumed_run_goes_on_as_if_never_interrupted(run_recipe, recipe, launcher):
    if launcher == TWO_PROCESSES and Version(transformers.__version__) < Version("5.18"):
        pytest.skip("before 5.18 transformers cannot load an optimizer's state on two processes without a GPU (cpu:0)")
    saving = {"save_strategy": "steps", "save_steps": 6, **requested("cosine_floor")}
    if recipe == "grpo":  # an untrained model gives no right answer: rewards for those, and all losses, would be 0
        saving["reward_funcs"] = ["benchmarks.common.recipe_runs.share_of_digits"]
    whole = run_recipe(recipe, launcher, **saving)
    assert (whole.folder / "checkpoint-6").is_dir()
    assert np.count_nonzero(whole.logged("loss")) == STEPS
    resumed = run_recipe(
        recipe, launcher, name="resumed", resume_from_checkpoint=str(whole.folder / "checkpoint-6"), **saving
    )
    np.testing.assert_array_equal(resumed.logged("learning_rate"), whole.logged("learning_rate"))
    np.testing.assert_array_equal(resumed.logged("loss"), whole.logged("loss"))
    assert (resumed.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_a_resume_under_another_schedule_is_refused(run_recipe):
    saving = {"save_strategy": "steps", "save_steps": 6, **requested("cosine_floor")}
    whole = run_recipe("sft", **saving)
    changed = {**saving, "lr_scheduler_kwargs": {"floor_ratio": 0.2}}
    refused = run_recipe("sft", ok=False, output_dir=whole.folder, resume_from_checkpoint="true", **changed)
    assert "was trained under another schedule" in refused.output


def test_a_resume_on_other_processes_that_make_fewer_steps_is_refused(run_recipe):
    # An epoch of 400 rows: 50 steps of 8 on one process, 25 of 2 x 8 on two.
    run = {**requested("cosine_floor"), "num_train_epochs": 1, "save_strategy": "steps", "save_steps": 6}
    whole = run_recipe("sft", **{**run, "max_steps": -1})
    checkpoint = str(whole.folder / "checkpoint-6")
    refused = run_recipe(
        "sft", TWO_PROCESSES, ok=False, name="two", resume_from_checkpoint=checkpoint, **{**run, "max_steps": -1}
    )
    assert re.search(r"^(\[rank\d\]:)? +steps +50 +25$", refused.output, re.MULTILINE)


def test_lora_trains_an_adapter_on_the_planned_curve(run_recipe):
    lora = run_recipe("sft", use_peft=True, lora_r=4, lora_target_modules="all-linear", **requested("cosine_floor"))
    np.testing.assert_allclose(lora.logged("learning_rate"), planned("sft", "cosine_floor"), rtol=1e-12)
    assert (lora.folder / "adapter_model.safetensors").is_file()


LARS = {
    "lr_scheduler_type": "lars_warmup",
    "lr_scheduler_kwargs": {"warmup": 8, "trust_coefficient": 0.001, "after": "cosine_floor"},
    "max_steps": STEPS,
}


@pytest.mark.slow
def test_trust_ratios_are_the_same_however_the_weights_are_spread(run_recipe):
    # Under FSDP2 each process holds a part of every weight (a DTensor), under DDP all of it.
    schedule = hf_sched.build("lars_warmup", num_training_steps=STEPS, **LARS["lr_scheduler_kwargs"])
    curve = schedule.curve(peak=PEAK["sft"])
    one = np.array(run_recipe("sft", name="one", **LARS).logged("learning_rate"))
    assert (one[:7] < 0.99 * curve[:7]).all()
    np.testing.assert_array_equal(one[7:], curve[7:])
    for launcher, name in ((TWO_PROCESSES, "ddp"), (FSDP2, "fsdp2")):
        spread = run_recipe("sft", launcher, name=name, per_device_train_batch_size=4, **LARS)
        assert spread.args.world_size == 2
        np.testing.assert_allclose(spread.logged("learning_rate"), one, rtol=1e-4)


def test_trust_ratios_are_refused_under_deepspeed_before_a_model_is_loaded(run_recipe):
    refused = run_recipe("sft", ZERO2, ok=False, model_name_or_path="nowhere", **LARS)
    assert "gradient norm, which DeepSpeed does not show" in refused.output
    assert "nowhere" not in refused.output


def test_a_cooldown_branches_off_a_checkpoint(run_recipe):
    asked_for = {**requested("cosine_floor"), "lr_scheduler_type": "wsd", "lr_scheduler_kwargs": None}
    parent = run_recipe("sft", name="parent", save_strategy="steps", save_steps=6, **asked_for)
    branch = {"anneal_from": str(parent.folder / "checkpoint-6"), "anneal_duration": "4", "anneal_shape": "linear"}
    rates = run_recipe("sft", name="cooled", **asked_for, **branch).logged("learning_rate")
    assert rates[:6] == parent.logged("learning_rate")[:6]
    np.testing.assert_allclose(rates[6:], PEAK["sft"] * np.array([0.75, 0.5, 0.25, 0.0]), rtol=1e-12)
