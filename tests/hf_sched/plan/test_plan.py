"""Plans compared with real trainers: their counts, and runs trained to the end, on one and on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hf_sched.plan import Plan, plan
from hf_sched.plan.training_config import TrainingConfig
from tests.helpers.extras import require

ROOT = Path(__file__).parents[3]
CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1, "seed": 0, "save_strategy": "no"}
KIND = {
    "sft": {"max_length": 64, "learning_rate": 2e-3},
    "grpo": {"max_completion_length": 4, "learning_rate": 2e-4},
    "dpo": {"max_length": 64, "learning_rate": 2e-4},
}
LINEAR = {"lr_scheduler_type": "linear"}
SPLIT = {"split_batches": True}
ACCUMULATE = {"gradient_accumulation_kwargs": {"num_steps": 4}}
BY_EPOCHS = {"save_strategy": "epoch", "eval_strategy": "epoch", "eval_delay": 2}
PHASES = {"phases": "warmup 0.5ep | hold 1ep | decay cosine to 0.1"}
IN_EPOCHS = {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": PHASES}
FLOOR = {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"floor_ratio": 0.1}}


def sft(samples: int, batch: int, accumulation: int = 1, **more: Any) -> dict[str, Any]:
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    return {"samples": samples, **sizes, **more}


def grpo(prompts: int, batch: int, accumulation: int, num_generations: int, **more: Any) -> dict[str, Any]:
    return {**sft(prompts, batch, accumulation), "num_generations": num_generations, **more}


def by_steps(save: float, evaluate: float, **more: Any) -> dict[str, Any]:
    strategies = {"save_strategy": "steps", "eval_strategy": "steps"}
    return {**strategies, "save_steps": save, "eval_steps": evaluate, **more}


# Sizes that do not divide evenly, and every key that changes a count. Cases named train_* are trained.
CASES: dict[str, dict[str, Any]] = {
    "sft_odd": sft(37, 4, 3),
    "sft_odd_dropped": sft(37, 4, 3, dataloader_drop_last=True),
    "sft_part_of_an_epoch": sft(41, 2, 4, num_train_epochs=0.3),
    "sft_max_steps_win": sft(37, 4, 3, max_steps=11, num_train_epochs=2, warmup_steps=5),
    "sft_as_text": sft(32, 4, num_train_epochs="2.5", learning_rate="1e-4", warmup_steps="0.1"),
    "sft_split_batches": sft(37, 4, 2, accelerator_config=SPLIT),
    "sft_accelerator_accumulates": sft(32, 2, accelerator_config=ACCUMULATE),
    "grpo_accumulated": grpo(37, 4, 3, 4, num_train_epochs=1.5),
    "grpo_iterated": grpo(37, 4, 2, 4, num_iterations=3),
    "grpo_generating_often": grpo(37, 8, 4, 4, steps_per_generation=1),
    "grpo_accumulating_across": grpo(37, 4, 3, 4, steps_per_generation=2),
    "grpo_by_generation_batch": grpo(37, 4, 2, 4, generation_batch_size=24),
    "dpo_odd": sft(37, 4, 3, num_train_epochs=1.5),
    "train_sft_by_steps": sft(
        37, 4, 3, **FLOOR, num_train_epochs=2.5, warmup_steps=0.1, **by_steps(2, 0.3, save_total_limit=2)
    ),
    "train_sft_by_epochs": sft(
        37, 4, 2, **LINEAR, **BY_EPOCHS, num_train_epochs=2.4, warmup_steps=3, dataloader_drop_last=True
    ),
    "train_sft_late_evaluation": sft(
        21, 2, max_steps=7, **FLOOR, eval_strategy="steps", eval_steps=2, eval_delay=3, eval_on_start=True
    ),
    "train_sft_epochs_in_the_schedule": sft(37, 4, 2, num_train_epochs=3, **IN_EPOCHS),
    "train_grpo": grpo(9, 4, 2, 4, **FLOOR, num_train_epochs=1.5, warmup_steps=2, save_strategy="steps", save_steps=4),
    "train_grpo_reusing": grpo(9, 4, 3, 2, **LINEAR, max_steps=4, steps_per_generation=2, num_iterations=2),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """The cases as files, and their data."""
    from hf_sched.finetune.demo.sorting_task import save_data

    folder = tmp_path_factory.mktemp("plan")
    save_data(folder, train=41, test=4, backwards_share=0.0, seed=0)
    for name, case in CASES.items():
        kind = name.removeprefix("train_").split("_")[0]
        given = {**CPU, **KIND[kind], "per_device_eval_batch_size": 4, **case}
        samples = given.pop("samples")
        data = folder / kind / str(samples)
        data.mkdir(parents=True, exist_ok=True)
        for part in ("train", "test"):
            source = folder / ("sft" if kind in ("sft", "dpo") else "grpo") / f"{part}.jsonl"
            rows = [json.loads(row) for row in source.read_text().splitlines()[:samples]]
            if kind == "dpo":
                rows = [{**row, "chosen": row["completion"], "rejected": row["completion"]} for row in rows]
            (data / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        given |= {"model_name_or_path": str(model_path), "dataset_name": str(data)}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(given))
    return folder


@pytest.fixture(
    scope="session", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["one process", "two processes"]
)
def observed(folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the trainers of all cases did, in separate processes."""
    require("trl")
    launch = ["-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu_2proc.yaml"]
    launcher = [*launch, "--main_process_port", "0"] if request.param == 2 else []
    for name in CASES:  # one output folder for each number of processes
        path = folder / f"{name}.yaml"
        path.write_text(path.read_text().split("output_dir")[0] + f"output_dir: {folder}/{name}_{request.param}\n")
    command = [sys.executable, *launcher, "tests/helpers/launchers/observed_runs.py", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return {**json.loads((folder / f"observed_{request.param}.json").read_text()), "processes": request.param}


@pytest.fixture
def seen(observed: dict[str, Any], name: str) -> dict[str, Any]:
    assert observed[name]["processes"] == observed["processes"]
    return observed[name]


@pytest.fixture
def planned(folder: Path, seen: dict[str, Any], name: str) -> Plan:
    kind = name.removeprefix("train_").split("_")[0]
    return plan(TrainingConfig.read(folder / f"{name}.yaml", kind), num_processes=seen["processes"])


@pytest.mark.parametrize("name", CASES)
def test_plan_counts_the_steps_of_the_trainer(name, planned, seen):
    assert planned.num_training_steps == seen["max_steps"]
    assert planned.steps_per_epoch == seen["steps_per_epoch"]
    assert planned.num_warmup_steps == seen["warmup_steps"]
    if "split_batches" not in name:  # the Trainer counts a process's share as a whole batch
        assert planned.effective_batch == seen["total_batch"]
    assert planned.dataset_size.samples == CASES[name]["samples"]


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("train_")])
def test_trained_run_follows_its_plan(name, planned, seen):
    assert seen["global_step"] == planned.num_training_steps
    assert seen["epoch"] == pytest.approx(planned.epochs)
    np.testing.assert_allclose(seen["learning_rates"], planned.curve, rtol=1e-12, atol=0)
    assert (planned.first_lr, planned.last_lr) == (planned.curve[0], planned.curve[-1])
    assert seen["evaluations"] == list(planned.evaluations)
    assert seen["checkpoints"] == list(planned.checkpoints[-CASES[name].get("save_total_limit", 0) :])
    if planned.grpo:
        assert len(seen["completions"]) == planned.grpo.generations
        # The main process sees only its share.
        assert sum(seen["completions"]) * seen["processes"] == planned.grpo.completions
        assert set(seen["completions"]) == {planned.grpo.generation_batch_size // seen["processes"]}
        if seen["processes"] == 1:
            assert set(seen["distinct_prompts"]) == {planned.grpo.prompts_per_generation}
