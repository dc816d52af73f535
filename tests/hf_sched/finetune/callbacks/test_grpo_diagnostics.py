"""Signs that a GRPO run learns nothing are reported once each, with a remedy; a healthy run has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from hf_sched.finetune.callbacks.grpo_diagnostics import WINDOW, GRPODiagnostics, collapsed
from hf_sched.finetune.demo.sorting_task import make_rows, problem
from hf_sched.finetune.training import train_and_save

STEPS = WINDOW + 2
PROMPTS = Dataset.from_list([problem(digits) for digits in make_rows(64, seed=0)])


def digits(completions: Any, **kwargs: Any) -> list[float]:
    """How many digits there are: differs within groups."""
    return [float(sum(c.isdigit() for c in chat[-1]["content"])) for chat in completions]


def constant(completions: Any, **kwargs: Any) -> list[float]:
    return [1.0] * len(completions)


def never(completions: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


def length_penalty(completions: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


def grpo(model_path: Path, folder: Path, rewards: Any, **given: Any) -> GRPOTrainer:
    """Train as the recipe does, with short completions."""
    requested = {"max_steps": STEPS, "max_completion_length": 6, "learning_rate": 1e-4, **given}
    args = GRPOConfig(
        str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        per_device_train_batch_size=16,
        num_generations=4,
        seed=0,
        **requested,
    )
    trainer = GRPOTrainer(str(model_path), reward_funcs=rewards, args=args, train_dataset=PROMPTS)
    train_and_save(trainer)
    return trainer


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Any:
    def read() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name.endswith("grpo_diagnostics")]

    return read


def test_groups_with_equal_rewards(model_path, tmp_path, warned):
    grpo(model_path, tmp_path, constant, max_completion_length=60)
    (line,) = [line for line in warned() if "cut off" not in line]
    assert line.startswith(f"step {WINDOW}: in 100% of the groups all completions got the same reward")
    assert "(reward 1, over 10 records)" in line
    assert "raise `num_generations` (4) or `temperature` (1)" in line


def test_reward_that_is_always_0(model_path, tmp_path, warned):
    grpo(model_path, tmp_path, [never, length_penalty], max_completion_length=60)
    (line,) = [line for line in warned() if "cut off" not in line]  # its consequences are not reported
    assert line.startswith(f"step {WINDOW}: the reward 'never' gave 0 to every completion")
    assert "`log_completions: true`" in line


def test_one_of_two_rewards_that_is_always_0(model_path, tmp_path, warned):
    grpo(model_path, tmp_path, [digits, never])
    assert [line.split(" gave ")[0].split(": ")[1] for line in warned() if "gave" in line] == ["the reward 'never'"]


def test_completions_that_are_cut_off(model_path, tmp_path, warned):
    grpo(model_path, tmp_path, digits, max_completion_length=2)
    (line,) = warned()
    assert "of the completions were cut off at `max_completion_length` (2)" in line
    assert "`mask_truncated_completions: true`" in line


def test_entropy_that_collapses(model_path, tmp_path, warned):
    # The learning rate is far too high.
    trainer = grpo(model_path, tmp_path, digits, max_steps=3 * WINDOW, learning_rate=1e-1)
    (line,) = [line for line in warned() if "entropy" in line]
    start = median(row["entropy"] for row in trainer.state.log_history[:WINDOW])
    assert f"the entropy of the tokens has fallen from {start:.3g} to " in line
    assert "a lower `learning_rate` (0.1), a higher `temperature` (1), `beta` above 0" in line


@pytest.fixture(scope="module")
def records() -> list[dict[str, float]]:
    """The log of a healthy run."""
    sound = {"loss": 0.1, "reward": 0.4, "rewards/a/mean": 0.4, "rewards/a/std": 0.5, "frac_reward_zero_std": 0.2}
    return [{**sound, "completions/clipped_ratio": 0.1, "entropy": 1.0} for _ in range(60)]


def feed(records: list[dict[str, float]], main: bool = True) -> None:
    """Log one record after another."""
    diagnostics = GRPODiagnostics()
    args = SimpleNamespace(num_generations=4, temperature=1.0, max_completion_length=8, learning_rate=1e-6, beta=0.0)
    for step in range(1, len(records) + 1):
        state = SimpleNamespace(is_world_process_zero=main, log_history=records[:step], global_step=step)
        diagnostics.on_log(args, state, None, logs=records[step - 1])


def changed(records: list[dict[str, float]], where: Iterator[int] | range, **values: float) -> list[dict[str, float]]:
    wrong = set(where)
    return [{**row, **(values if step in wrong else {})} for step, row in enumerate(records, 1)]


def test_healthy_runs_and_other_processes_report_nothing(records, warned):
    feed(records)
    feed(changed(records, range(1, 60), frac_reward_zero_std=1.0), main=False)
    assert warned() == []


def test_a_few_bad_steps_are_not_reported(records, warned):
    feed(changed(records, range(20, 24), frac_reward_zero_std=1.0))
    assert warned() == []


def test_lasting_sign_is_reported_once_and_again_if_it_comes_back(records, warned):
    feed(changed(records, [*range(5, 25), *range(45, 60)], frac_reward_zero_std=1.0))
    steps = [int(line.split()[1].rstrip(":")) for line in warned()]
    assert len(steps) == 2
    assert 5 < steps[0] < 15 and 45 < steps[1] < 55


def test_sign_around_its_threshold_is_reported_once(records, warned):
    feed(changed(changed(records, range(60), frac_reward_zero_std=0.75), range(1, 60, 2), frac_reward_zero_std=0.95))
    assert len(warned()) == 1


def test_resumed_run_knows_its_initial_entropy(records):
    low = changed(records, range(30, 61), entropy=0.05)
    assert "from 1 to 0.05" in str(
        collapsed(low[-WINDOW:], low[:WINDOW], SimpleNamespace(learning_rate=1e-6, temperature=1.0, beta=0.0))
    )
