"""A GRPO run on several rewards: each is logged apart, the weights count, and a reward that fails does not end it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def test_rewards_are_logged_apart_and_weighed(run_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "house_rewards.py").write_text(
        "def digits(completions, scale=1.0, **kwargs):\n"
        "    return [scale * sum(c.isdigit() for c in chat[-1]['content']) for chat in completions]\n"
        "def moody(completions, **kwargs):\n"
        "    return [1 / (len(chat[-1]['content']) % 3) for chat in completions]\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    run = run_recipe(
        "grpo",
        max_steps=3,
        reward_funcs=[
            {"name": "final_number", "weight": 2.0},
            {"name": "house_rewards.digits", "scale": 0.1, "weight": 0.5},
            {"name": "house_rewards.moody", "weight": 0.0},
        ],
    )
    digits = np.array(run.logged("rewards/digits/mean"))
    right = np.array(run.logged("rewards/final_number/mean"))
    assert len(digits) == 3 and digits.min() > 0
    np.testing.assert_allclose(run.logged("reward"), 2.0 * right + 0.5 * digits, rtol=1e-5, atol=1e-7)
    assert run.args.reward_weights == [2.0, 0.5, 0.0]
    assert "the reward 'moody' failed (ZeroDivisionError" in run.output


def test_a_reward_without_its_column_is_refused_before_the_model_is_loaded(run_recipe, task: Path, tmp_path: Path):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "1 2 3"}\n' * 8)
    run = run_recipe("grpo", ok=False, dataset_name=str(data), model_name_or_path=str(task / "model"))
    assert run.returncode == 2
    assert "the reward 'exact_answer' needs a column `answer` in the data, which have prompt" in run.output
