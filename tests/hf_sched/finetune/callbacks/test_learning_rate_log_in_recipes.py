"""Recipes log every group's learning rate at every step, and their runs pass the audit, however they are spread."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import hf_sched
from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from hf_sched.audit import audit
from tests.helpers.recipes import GRPO, ONE_PROCESS, SFT, TWO_PROCESSES, ZERO2

STEPS = 6
PEAK = {"sft": SFT["learning_rate"], "grpo": GRPO["learning_rate"]}
ASKED = {"lr_scheduler_type": "cosine_floor", "warmup_steps": 2, "max_steps": STEPS, "logging_steps": 3}


@pytest.mark.parametrize(
    ("recipe", "launcher"),
    [("sft", TWO_PROCESSES), ("grpo", ONE_PROCESS), pytest.param("sft", ZERO2, marks=pytest.mark.slow)],
    ids=["sft on two processes", "grpo", "sft under ZeRO-2"],
)
def test_a_recipe_logs_every_step_and_its_run_passes_the_audit(run_recipe, recipe, launcher):
    if launcher == ZERO2 and not shutil.which("c++"):
        pytest.skip("DeepSpeed compiles an operator when first used: install a C++ compiler to run this")
    done = run_recipe(recipe, launcher, **ASKED)
    curve = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=2).curve(peak=PEAK[recipe])
    rows = [row for row in read_learning_rates(done.folder / LEARNING_RATES) if "step" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))  # once, whoever many processes there are
    np.testing.assert_array_equal(np.array([row["rates"] for row in rows])[:, 0], curve)
    assert done.logged("learning_rate/group_0") == done.logged("learning_rate") == curve[[2, 5]].tolist()
    report = audit(done.folder)
    assert report.ok, report.lines
    assert report.deviation == 0
    assert len(report.comparisons[0].steps) == STEPS


@pytest.mark.slow
def test_under_a_scheduler_of_deepspeeds_own_the_log_tells_the_rate_used_and_the_audit_names_it(run_recipe, tmp_path):
    if not shutil.which("c++"):
        pytest.skip("DeepSpeed compiles an operator when first used: install a C++ compiler to run this")
    parameters = {"warmup_min_lr": 0, "warmup_max_lr": "auto", "warmup_num_steps": "auto", "warmup_type": "linear"}
    scheduler = {"type": "WarmupLR", "params": parameters}
    config = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto", "scheduler": scheduler}
    (tmp_path / "deepspeed.json").write_text(json.dumps(config | {"train_batch_size": "auto"}))
    given = {
        **ASKED,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 4,
        "logging_steps": 1,
        "deepspeed": str(tmp_path / "deepspeed.json"),
    }
    done = run_recipe("sft", ["accelerate_configs/cpu_2proc.yaml"], **given)
    used, said = done.logged("learning_rate/group_0"), done.logged("learning_rate")
    assert used[1:] == said[:-1]  # DeepSpeed's has stepped by then, so that the Trainer logs the next one
    assert used[1] < used[2] < used[3]
    report = audit(done.folder)
    assert "the DeepSpeed configuration has a `scheduler` ('WarmupLR')" in report.findings[0]
