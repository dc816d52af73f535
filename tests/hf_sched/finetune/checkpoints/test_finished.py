"""A finished run that is started again does not change."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

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
