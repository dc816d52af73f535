"""A finished run that is started again does not change, also one that early stopping has ended."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from transformers import EarlyStoppingCallback

from tests.helpers.tiny_trainer import ModelTrainer, steps_of

# Not at the end of an epoch, where the Trainer stops by itself.
SEVEN = {"max_steps": 7, "save_steps": 7, "lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold"}}
KEPT = ("model.safetensors", "trainer_state.json", "learning_rates.jsonl", "train_results.json")


def kept(folder: Path) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in KEPT}


@pytest.fixture
def finished(model_path: Path, tmp_path: Path) -> Path:
    assert ModelTrainer(model_path, tmp_path / "run", **SEVEN).run() == 0
    return tmp_path / "run"


def again(model_path: Path, folder: Path, **given: object) -> int:
    trainer = ModelTrainer(model_path, folder, **{**SEVEN, **given})
    return trainer.run(str(folder / "checkpoint-7"))


def test_finished_run_is_not_trained_further(model_path, finished, caplog):
    before = kept(finished)
    caplog.set_level("INFO", "hf_sched")
    assert again(model_path, finished) == 0
    assert "all 7 optimizer steps are done: nothing is left to train" in caplog.text
    assert kept(finished) == before
    assert steps_of(finished) == [7]
    for name in ("model.safetensors", "trainer_state.json"):
        (finished / name).unlink()
    assert again(model_path, finished) == 0
    assert kept(finished)["model.safetensors"] == before["model.safetensors"]


def test_longer_run_continues(model_path, finished, caplog):
    longer = {"max_steps": 9, "lr_scheduler_kwargs": {"phases": "hold", "on_resume": "replace"}}
    before = kept(finished)
    assert again(model_path, finished, **longer) == 0
    assert "nothing is left" not in caplog.text
    assert kept(finished)["model.safetensors"] != before["model.safetensors"]


# At a learning rate of 0 the loss never improves: patience 2 is used up at step 6, after the best one at step 2.
CONSTANT = {
    **{"learning_rate": 0.0, "max_steps": 12, "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2},
    **{"metric_for_best_model": "loss", "load_best_model_at_end": True},
}


def test_early_stopping_counts_on_after_a_resume_and_stays_finished(model_path, tmp_path, caplog):
    def train(checkpoint: str | None = None, **given: object) -> list[int]:
        trainer = ModelTrainer(model_path, tmp_path / "run", EarlyStoppingCallback(2), **{**CONSTANT, **given})
        assert trainer.run(checkpoint) == 0
        return steps_of(tmp_path / "run")

    assert train() == [2, 4, 6]
    before = kept(tmp_path / "run")
    caplog.set_level("INFO", "hf_sched")
    assert train(str(tmp_path / "run" / "checkpoint-6")) == [2, 4, 6]
    assert "early stopping ended the run at step 6: nothing is left to train" in caplog.text
    assert kept(tmp_path / "run")["model.safetensors"] == before["model.safetensors"]
    # Killed after step 4, when one of two evaluations without improvement was counted.
    assert train(str(tmp_path / "run" / "checkpoint-4")) == [2, 4, 6]


def test_best_model_is_saved_when_a_finished_run_is_started_again(model_path, tmp_path):
    best = {**CONSTANT, "learning_rate": 1e-2, "max_steps": 6, "metric_for_best_model": "loss"}
    best["greater_is_better"] = True  # so the first checkpoint is the best one
    run = tmp_path / "run"
    assert ModelTrainer(model_path, run, **best).run() == 0
    before = kept(run)["model.safetensors"]
    assert before == sha256((run / "checkpoint-2" / "model.safetensors").read_bytes()).hexdigest()
    (run / "model.safetensors").unlink()
    assert ModelTrainer(model_path, run, **best).run(str(run / "checkpoint-6")) == 0
    assert kept(run)["model.safetensors"] == before and steps_of(run) == [2, 4, 6]
