"""`hf-sched plan` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.command_line import printed
from tests.helpers.extras import require

require("trl")  # most plans are of its trainers

ROOT = Path(__file__).parents[3]


def test_plan_prints_the_facts_and_the_curve_of_a_run():
    launch = ("--accelerate-config", ROOT / "accelerate_configs/cpu_2proc.yaml")
    shown = printed("plan", ROOT / "recipes/configs/demo_grpo.yaml", "--dataset-size", 2000, *launch)
    for line in (
        "recipes/configs/demo_grpo.yaml  grpo, 200 optimizer steps",
        "assumed: kind grpo (has `reward_funcs`)\n",
        "accelerate_configs/cpu_2proc.yaml)",
        "64 completions = 32 per process x 2 x 1 accumulated",
        "8 prompts x num_generations 8 = 64 completions",
        "1 optimizer step = steps_per_generation 1 x num_iterations 1 / accumulation 1",
        "200 generations: 1,600 prompts, 12,800 completions",
        "cosine_floor: warmup 10 | decay 190 cosine; floor 0.1",
        "first 2e-05, peak 0.0002, last 2e-05",
        "2, after steps 100, 200",
        "runs/demo/grpo",
    ):
        assert line in shown
    assert any("\u2800" <= character <= "\u28ff" for character in shown)  # Braille: the curve
    assert "\x1b" not in shown


def test_every_shipped_config_has_a_plan(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted((ROOT / "recipes" / "configs").glob("*.yaml")):
        text = printed("plan", path, "--dataset-size", 7473)
        planned = json.loads(printed("plan", path, "--dataset-size", 7473, "--json"))
        assert f"{planned['num_training_steps']:,} optimizer steps" in text
        assert planned["schedule"] in text
        assert all(note in text for note in planned["notes"])
        assert not any("is not an argument" in note for note in planned["notes"])
        assert planned["kind"] in path.stem.split("_")
        assert planned["assumed"][-1] == "1 process"


def test_json_is_one_object_with_the_curve():
    path = ROOT / "recipes/configs/demo_sft.yaml"
    planned = json.loads(printed("plan", path, "--num-processes", 3, "--kind", "sft", "--json"))
    assert (planned["assumed"], planned["effective_batch"], len(planned["curve"])) == ([], 96, 300)
    assert planned["world_size"] == {"processes": 3, "source": "as given", "assumed": False}


def test_long_plans_are_shortened(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("max_steps: 200\nsave_steps: 1\n")
    assert "200, after steps 1, 2, 3, ..., 199, 200" in printed("plan", config, "--kind", "sft")
