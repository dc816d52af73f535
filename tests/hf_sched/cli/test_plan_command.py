"""`hf-sched plan` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def hf_sched(*words: str, columns: int = 100) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns)}
    return subprocess.run(
        [sys.executable, "-m", "hf_sched", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def demo() -> str:
    done = hf_sched("plan", "recipes/configs/demo_grpo.yaml", "--dataset-size", "2000")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "recipes/configs/demo_grpo.yaml: grpo, 200 optimizer steps",
        "2 (accelerate_configs/cpu_2proc.yaml, named in the launch line)",
        "64 completions = 32 a process x 2 x 1 accumulated",
        "8 prompts x num_generations 8 = 64 completions",
        "250 generations x 1 optimizer step = 250 steps",
        "200 generations: 1,600 prompts, 12,800 completions",
        "cosine_floor: warmup 10 | decay 190 cosine; floor 0.1",
        "first 2e-05, peak 0.0002, last 2e-05",
        "2, after steps 100, 200",
        "the model is saved in runs/demo/grpo",
    ],
)
def test_the_screen_says(demo, line):
    assert line in demo


def test_the_curve_is_drawn_and_piped_text_is_plain(demo):
    assert "optimizer step" in demo
    assert "\x1b" not in demo
    # Braille: the curve itself.
    assert any("\u2800" <= character <= "\u28ff" for character in demo)
    assert max(len(line) for line in demo.splitlines()) <= 100


def test_json_is_one_object_with_the_curve():
    done = hf_sched("plan", "recipes/configs/demo_sft.yaml", "--world-size", "3", "--json")
    planned = json.loads(done.stdout)
    assert (planned["kind"], planned["effective_batch"], len(planned["curve"])) == ("sft", 96, 300)
    assert planned["world_size"] == {"processes": 3, "source": "as given"}


def test_a_mistake_is_one_line_and_status_2(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("learning_rate: fast\nmax_steps: 3\n")
    done = hf_sched("plan", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["hf-sched: `learning_rate` must be a finite number, 0 or more, received 'fast'"]
