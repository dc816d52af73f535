"""Signs that a GRPO run learns nothing are reported once each, with a remedy; a healthy run has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from hf_sched.finetune.callbacks.grpo_diagnostics import WINDOW, GRPODiagnostics
from hf_sched.finetune.demo.sorting_task import make_rows, problem
from hf_sched.finetune.pipeline import train_and_save
from tests.helpers.recipes import COMMON

PROMPTS = Dataset.from_list([problem(digits) for digits in make_rows(64, seed=0)])


def digits(completions: Any, **kwargs: Any) -> list[float]:
    """The number of digits, which differs within groups."""
    return [float(sum(c.isdigit() for c in chat[-1]["content"])) for chat in completions]


def constant(completions: Any, **kwargs: Any) -> list[float]:
    return [1.0] * len(completions)


def never(completions: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


def length_penalty(completions: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Any:
    return lambda: [each.getMessage() for each in caplog.records if each.name.endswith("grpo_diagnostics")]


@pytest.mark.parametrize(
    ("rewards", "given", "messages"),
    [
        (
            [constant],
            {},
            [
                f"step {WINDOW}: in 100% of the groups all completions got the same reward",
                "(reward 1, over 10 records)",
                "raise `num_generations` (4) or `temperature` (1)",
            ],
        ),
        (
            [never, length_penalty],
            {},
            [f"step {WINDOW}: the reward 'never' gave 0 to every completion", "`log_completions: true`"],
        ),
        (
            [digits],
            {"max_completion_length": 2},
            ["of the completions were cut off at `max_completion_length` (2)", "a trained stop token"],
        ),
    ],
    ids=["equal rewards", "zero reward", "clipped"],
)
def test_sign_is_reported_once(model_path, tmp_path, warned, rewards, given, messages):
    batch = {"per_device_train_batch_size": 16, "num_generations": 4, "max_completion_length": 60}
    arguments = {"max_steps": WINDOW + 2, "learning_rate": 1e-4, "disable_tqdm": True, **given}
    args = GRPOConfig(str(tmp_path), **{**COMMON, **batch, **arguments})
    trainer = GRPOTrainer(str(model_path), reward_funcs=rewards, args=args, train_dataset=PROMPTS)
    train_and_save(trainer)
    first, *others = messages
    (line,) = [line for line in warned() if first in line]
    assert all(message in line for message in others)


HEALTHY = {"loss": 0.1, "reward": 0.4, "rewards/a/mean": 0.4, "rewards/a/std": 0.5, "frac_reward_zero_std": 0.2}
RECORDS = [{**HEALTHY, "completions/clipped_ratio": 0.1} for _ in range(60)]


def changed(steps: range, **values: float) -> list[dict[str, float]]:
    return [{**row, **(values if step in steps else {})} for step, row in enumerate(RECORDS, 1)]


@pytest.mark.parametrize(
    ("records", "reported"),
    [
        (RECORDS, []),
        (changed(range(20, 24), frac_reward_zero_std=1.0), []),
        (changed(range(5, 60), frac_reward_zero_std=1.0), ["step 10: in 100% of the groups"]),
    ],
    ids=["healthy", "a few bad steps", "lasting"],
)
def test_lasting_sign_is_reported_once(warned, records, reported):
    diagnostics = GRPODiagnostics()
    args = SimpleNamespace(num_generations=4, temperature=1.0, max_completion_length=8, learning_rate=1e-6, beta=0.0)
    for step in range(1, len(records) + 1):
        state = SimpleNamespace(is_world_process_zero=True, log_history=records[:step], global_step=step)
        diagnostics.on_log(args, state, None, logs=records[step - 1])
    assert [line[: len(start)] for line, start in zip(warned(), reported, strict=True)] == reported
