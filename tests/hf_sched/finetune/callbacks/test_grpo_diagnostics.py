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


def never(completions: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Any:
    return lambda: [each.getMessage() for each in caplog.records if each.name.endswith("grpo_diagnostics")]


@pytest.mark.parametrize(
    ("reward", "length", "messages"),
    [
        (never, 60, ["in 100% of the groups all completions got the same reward", "(reward 0, over 10 records)"]),
        (digits, 2, ["of the completions were cut off at `max_completion_length` (2)", "a trained stop token"]),
    ],
)
def test_sign_is_reported_once(model_path, tmp_path, warned, reward, length, messages):
    given = {"per_device_train_batch_size": 16, "num_generations": 4, "max_completion_length": length}
    args = GRPOConfig(str(tmp_path), **COMMON, **given, max_steps=WINDOW + 2, learning_rate=1e-4, disable_tqdm=True)
    train_and_save(GRPOTrainer(str(model_path), reward_funcs=reward, args=args, train_dataset=PROMPTS))
    (line,) = [line for line in warned() if messages[0] in line]
    assert line.startswith(f"step {WINDOW}: ") and messages[1] in line


@pytest.mark.parametrize(("bad_steps", "reported"), [(0, []), (4, []), (30, ["step 27:"])])
def test_only_a_lasting_sign_is_reported(warned, bad_steps, reported):
    records = [{"loss": 0.1, "reward": 0.4, "frac_reward_zero_std": float(20 < n <= 20 + bad_steps)} for n in range(60)]
    args = SimpleNamespace(num_generations=4, temperature=1.0, report_to=[])
    diagnostics = GRPODiagnostics()
    for step in range(1, len(records) + 1):
        state = SimpleNamespace(is_world_process_zero=True, log_history=records[:step], global_step=step)
        diagnostics.on_log(args, state, None, logs=records[step - 1])
    assert [line[:8] for line in warned()] == reported
