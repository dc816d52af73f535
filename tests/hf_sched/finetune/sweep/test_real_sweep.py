"""A sweep of the embedded task with real trainings: a killed worker, two workers at once, a diverging peak."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.common.task import ON_CPU, ROOT, child_environment
from hf_sched._run_files import read_learning_rates
from hf_sched.finetune.demo.sorting_task import save_data, save_model

pytestmark = pytest.mark.slow

TIMEOUT = 500.0


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    words = ["sweep", folder / "my.yaml", "--learning-rates", "1e-3,4e-3,1e30", "--seeds", "2", "--budget", "80%"]
    command = [sys.executable, "-m", "hf_sched", *map(str, words), "--output", str(folder / "swept"), *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=child_environment(), **pipes)


def wait_until(condition, timeout: float = TIMEOUT) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_killed_sweep_is_finished_by_two_workers(tmp_path):
    save_model(tmp_path / "model", layers=1, width=16, seed=0)
    save_data(tmp_path, train=200, test=20, backwards_share=0.0, seed=0)
    arguments = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "sft"),
        "output_dir": str(tmp_path / "run"),
        "warmup_steps": 1,
        "max_steps": 20,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        **ON_CPU,
        "seed": 0,
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(arguments))
    trials = tmp_path / "swept" / "trials"

    # The first worker is killed while its second run trains.
    first = start(tmp_path)
    wait_until(lambda: (trials / "1" / "config.yaml").is_file())
    wait_until(lambda: len(psutil.Process(first.pid).children()) == 1)
    orphan = psutil.Process(first.pid).children()[0]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert orphan.is_running()

    both = [start(tmp_path, "--json") for _ in range(2)]
    answers = []
    for worker in both:
        output, errors = worker.communicate(timeout=TIMEOUT)
        assert worker.returncode == 0, output + errors
        answers.append(json.loads(output[output.index("{") :]))
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert not (trials / "1").exists()
    assert {**answers[0], "steps_here": 0} == {**answers[1], "steps_here": 0}
    assert all(answer["steps_here"] > 0 for answer in answers)
    by_peak = {point["learning_rate"]: point for point in answers[0]["points"]}
    assert by_peak[1e30]["standing"] == "failed" and by_peak[1e30]["steps"] == 10
    assert all("diverged" in error for error in answers[0]["errors"].values())
    assert answers[0]["best"] == {"learning_rate": 4e-3}
    assert len(by_peak[4e-3]["values"]) == 2 and by_peak[4e-3]["steps"] == 20
    # Hold and cooldown, continued from the shorter run of the same peak and seed.
    continued = 0
    for folder in trials.iterdir():
        config = yaml.safe_load((folder / "config.yaml").read_text())
        if not (folder / "trainer_state.json").is_file() or config["learning_rate"] > 1:
            continue
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        assert [row["step"] for row in history if "eval_loss" in row] == [config["max_steps"]]
        rates = [row["rates"][0] for row in read_learning_rates(folder / "learning_rates.jsonl") if "rates" in row]
        total, peak = config["max_steps"], config["learning_rate"]
        resumed = "resume_from_checkpoint" in config
        continued += resumed
        assert len(rates) == (12 if resumed else total) and max(rates) == peak
        decay = round(0.2 * total)
        assert rates[-decay - 1] == peak and all(rate < peak for rate in rates[-decay:])
        assert not list(folder.glob("checkpoint-*")) and not list(folder.glob("*.safetensors"))
    assert continued >= 2

    # A continued run is the same, bit for bit, as one without a break.
    best = yaml.safe_load((tmp_path / "swept" / "best.yaml").read_text())
    assert best == {**arguments, "learning_rate": 4e-3}
    schedule = ["--lr_scheduler_type", "warmup 1 | hold 15 | decay 4 1-sqrt"]
    evaluation = ["--warmup_steps", "0", "--eval_strategy", "steps", "--eval_steps", "20"]
    command = [sys.executable, "recipes/sft.py", "--config", str(tmp_path / "swept" / "best.yaml")]
    subprocess.run([*command, *schedule, *evaluation], cwd=ROOT, env=child_environment(), timeout=TIMEOUT, check=True)
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert [row["eval_loss"] for row in history if "eval_loss" in row] == by_peak[4e-3]["values"][:1]
