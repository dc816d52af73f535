"""In a minute of training: the recipes learn, and a step calls few functions.

The trainings are some of docs/benchmarks.md with a fixed seed, so they only vary by the rounding of other machines.
Calls are counted, because seconds are noisy.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import hf_sched
from hf_sched.finetune.demo.sorting_task import save_data, save_model
from tests.helpers.recipes import ROOT, run_main
from tests.helpers.trainer import make

# Three seeds end at 0.356 to 0.396. Half the peak gives 0.54 and twice the peak 0.46, as a mean of three seeds.
SFT_LOSS = 0.45
# Share of correct sampled answers. It is 0.20 here; at twice the peak it falls below 0.05 with all seeds.
GRPO_GAIN = 0.1


def evaluations(kind: str, metric: str, model: Path, rows: Path, folder: Path) -> tuple[float, float]:
    """Train on a config of the learning benchmark; return the metric before and after."""
    given = {"config": ROOT / f"benchmarks/learning/configs/{kind}.yaml", "model_name_or_path": model}
    given |= {"dataset_name": rows, "output_dir": folder, "eval_strategy": "epoch", "eval_on_start": "true"}
    given |= {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": '{"floor_ratio": 0.1}'}
    status, output = run_main(kind, *(word for key, value in given.items() for word in (f"--{key}", str(value))))
    assert status == 0, output[-4000:]
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    first, *_, last = [row[metric] for row in history if metric in row]
    return first, last


@pytest.mark.slow
def test_sft_and_grpo_learn(tmp_path):
    save_model(tmp_path / "model", layers=2, width=128, seed=0)
    save_data(tmp_path, train=3000, test=500, backwards_share=0.6, seed=0)
    before, after = evaluations("sft", "eval_loss", tmp_path / "model", tmp_path / "sft", tmp_path / "sft_run")
    assert before > 2.9  # about 20 tokens, none of them known yet
    assert after < SFT_LOSS
    before, after = evaluations("grpo", "eval_reward", tmp_path / "sft_run", tmp_path / "grpo", tmp_path / "grpo_run")
    assert after - before > GRPO_GAIN, (before, after)


def calls_of(model_path: Path, folder: Path, steps: int, **given: Any) -> Counter[str]:
    """Count the calls of our functions in a training with the guard and these callbacks."""
    trainer, _ = make(model_path, folder, lr_scheduler_type="cosine_floor", max_steps=steps, disable_tqdm=True, **given)
    counted: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        # Any import of any package calls `find_spec`.
        name, file = frame.f_code.co_name, frame.f_code.co_filename
        if event == "call" and file.startswith(str(ROOT / "hf_sched")) and name != "find_spec":
            counted[name] += 1

    sys.setprofile(count)
    try:
        trainer.train()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize(
    ("logging", "live", "most"),
    # A log line has the planned rates and the phase.
    [("no", [], 34), ("steps", [hf_sched.LiveControl], 46)],
    ids=["log", "live cooldown"],
)
def test_guard_and_log_call_few_functions_per_step(model_path, tmp_path, monkeypatch, logging, live, most):
    # The status file is written by the clock, so more often on a busy machine.
    monkeypatch.setattr("hf_sched.callbacks.live_cooldown.STATUS_INTERVAL", 1e9)
    short, long = Counter[str](), Counter[str]()
    for counted, steps in ((short, 20), (long, 60)):
        callbacks = [one() for one in (hf_sched.LearningRateLog, *live)]
        counted += calls_of(model_path, tmp_path / str(steps), steps, logging_strategy=logging, callbacks=callbacks)
    assert long["step"] - short["step"] == 40  # our scheduler is among them
    assert (long.total() - short.total()) / 40 <= most, long
