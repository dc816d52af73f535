"""The learning benchmark with trainings of a few steps: what it runs, keeps, and continues."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from transformers import AutoModelForCausalLM

from benchmarks.common.task import ON_CPU, ROOT
from benchmarks.learning import run
from benchmarks.learning.text_task import MOST_ROWS, make_text_task
from hf_sched._run_files import read_learning_rates
from hf_sched.finetune.demo.sorting_task import save_data, save_model

SCHEDULES = ["linear", "cosine_floor:floor_ratio=0.1"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    for seed in (0, 1):
        save_model(folder / f"model-{seed}", layers=1, width=16, seed=seed)
    save_data(folder, train=60, test=10, backwards_share=0.0, seed=0)
    arguments = {
        "model_name_or_path": str(folder / "model-0"),
        "dataset_name": str(folder / "sft"),
        "learning_rate": 1e-3,
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        **ON_CPU,
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(arguments))
    return file


def compare(config: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    words = ["--config", config, "--output", output, "--jobs", "2", *more]
    command = [sys.executable, "-m", "benchmarks.learning.run", "compare", *map(str, words)]
    command += ["--flags", "--model_name_or_path", str(config.parent / "model-{seed}")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_each_training_runs_once_and_is_reported(config, tmp_path):
    both = ("--schedules", *SCHEDULES)
    first = compare(config, tmp_path, *both, "--learning_rates", "1e-3", "1e30", "--seeds", "0")
    assert first.returncode == 0, first.stdout + first.stderr
    runs = pd.read_csv(tmp_path / "runs.csv").set_index(["schedule", "learning_rate"]).sort_index()
    assert len(runs) == 4
    # At 1e30 the weights are NaN after a step: the recipe stops, and the report says so.
    for schedule in SCHEDULES:
        failed, done = runs.loc[schedule, 1e30], runs.loc[schedule, 1e-3]
        assert pd.isna(failed["value"]) and "exit status 1" in failed["error"]
        assert done["value"] > 0 and done["steps"] == 4 and done["deviation"] == 0
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Failed, so their peak is excluded" in report and "| `linear` | 0.001 (edge) |" in report
    assert (tmp_path / "learning.png").stat().st_size > 10_000

    # With one more seed, finished trainings are not repeated, and each seed has its own model.
    second = compare(config, tmp_path, *both, "--learning_rates", "1e-3", "--seeds", "0", "1")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "2 of 4 trainings are done already" in second.stdout
    assert list(pd.read_csv(tmp_path / "runs.csv")["seed"]) == [0, 0, 1, 1]
    command = json.loads((tmp_path / "runs/linear/0.001/seed-1/run.json").read_text())["sessions"][0]["command"]
    assert f"{config.parent}/model-1" in str(command)

    # Other settings in the same folder would mix results.
    other = shutil.copy(config, config.with_name("other.yaml"))
    third = compare(other, tmp_path, "--schedules", "linear", "--learning_rates", "1e-3")
    assert third.returncode == 2 and "`--output` must be a new folder" in third.stderr


@pytest.mark.parametrize("wrong", ["cosine_flor", "cosine_floor:floor_ratio=2"])
def test_wrong_schedule_is_rejected_before_training(config, tmp_path, wrong):
    with pytest.raises(ValueError, match=r"cosine_floor|floor_ratio"):
        run.run_sweep(run.Recipe(config, tmp_path, [0]), ["linear", wrong], [1e-3])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_budgets_branch_off_the_long_run(config, tmp_path):
    code = (
        "from pathlib import Path; from benchmarks.learning import run\n"
        f"recipe = run.Recipe(Path({str(config)!r}), Path({str(tmp_path)!r}), [0], jobs=2)\n"
        "run.run_budgets(recipe, 2e-3, {20: 4, 40: 8, 80: 16})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=500, check=True)
    rates = {}
    for steps in (20, 40, 80):
        rows = read_learning_rates(tmp_path / f"runs/wsd-{steps}/seed-0/learning_rates.jsonl")
        rates[steps] = [row["rates"][0] for row in rows if "rates" in row]
    assert rates[80][:64] == [2e-3] * 64 and rates[80][-1] < rates[80][64]
    for steps, cooldown in ((20, 4), (40, 8)):
        assert len(rates[steps]) == cooldown and max(rates[steps]) <= 2e-3
    report = (tmp_path / "report.md").read_text()
    assert "92 by one `wsd` run and two branches, 140 by three cosine runs: 65.7%" in report


def test_text_task_holds_out_the_test_split(tmp_path):
    problems = {split: [{"question": f"{split} {n}?", "answer": str(n)} for n in range(300)] for split in MOST_ROWS}
    for split, rows in problems.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_text_task(tmp_path, tmp_path / "task", [3])
    rows = (tmp_path / "task" / "data" / "test.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in rows] == [f"test {n}?\n{n}" for n in range(200)]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "task" / "model-3").num_parameters() > 130_000
