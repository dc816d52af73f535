"""`hf-sched plan` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hf_sched.cli import app

ROOT = Path(__file__).parents[3]


def printed(*words: str) -> str:
    result = CliRunner().invoke(app, ["plan", *words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def demo() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return printed("recipes/configs/demo_grpo.yaml", "--dataset-size", "2000")


@pytest.mark.parametrize(
    "line",
    [
        "recipes/configs/demo_grpo.yaml  grpo, 200 optimizer steps",
        "2 (accelerate_configs/cpu_2proc.yaml of the launch)",
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
    assert all(line == line.rstrip() for line in demo.splitlines())


def test_every_shipped_config_has_a_plan(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted((ROOT / "recipes" / "configs").glob("*.yaml")):
        said = printed(str(path), "--dataset-size", "7473")
        planned = json.loads(printed(str(path), "--dataset-size", "7473", "--json"))
        assert f"{planned['num_training_steps']} optimizer steps" in said
        assert planned["schedule"] in said
        assert all(note in said for note in planned["notes"])
        assert not any("No argument is called" in note for note in planned["notes"])


def test_json_is_one_object_with_the_curve():
    planned = json.loads(printed(str(ROOT / "recipes/configs/demo_sft.yaml"), "--world-size", "3", "--json"))
    assert (planned["kind"], planned["effective_batch"], len(planned["curve"])) == ("sft", 96, 300)
    assert planned["world_size"] == {"processes": 3, "source": "as given", "assumed": False}


def test_many_phases_and_checkpoints_are_cut_short(tmp_path):
    config = tmp_path / "config.yaml"
    restarts = "lr_scheduler_type: cosine_restarts\nlr_scheduler_kwargs: {num_cycles: 20, cycle_multiplier: 1}\n"
    config.write_text(f"{restarts}max_steps: 200\nsave_steps: 1\n")
    said = printed(str(config), "--kind", "sft")
    assert "200, after steps 1, 2, 3, ..., 199, 200" in said
    assert "... 8 more" in said


def test_a_batch_that_is_split_is_called_so(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("per_device_train_batch_size: 8\nmax_steps: 2\naccelerator_config: {split_batches: true}\n")
    said = printed(str(config), "--kind", "sft", "--world-size", "4")
    assert "8 samples = 8 split over 4 processes x 1 accumulated" in said


def test_a_mistake_is_one_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "hf_sched", "plan", "no.yaml"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hf-sched: there is no file 'no.yaml': give a YAML or JSON file of training arguments\n"
