"""A run that is through and is started again stays what it was."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from tests.hf_sched.finetune.callbacks.test_divergence import ModelTrainer, steps_of

# Within an epoch: at the end of one the Trainer stops by itself.
SEVEN = {"max_steps": 7, "save_steps": 7, "lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold"}}
KEPT = ("model.safetensors", "trainer_state.json", "learning_rates.jsonl", "train_results.json")


def kept(folder: Path) -> dict[str, str]:
    return {name: sha256((folder / name).read_bytes()).hexdigest() for name in KEPT}


@pytest.fixture
def finished(model_path: Path, tmp_path: Path) -> Path:
    assert ModelTrainer(model_path, tmp_path / "run", disable_tqdm=True, **SEVEN).run() == 0
    return tmp_path / "run"


def again(model_path: Path, folder: Path, **given: object) -> int:
    trainer = ModelTrainer(model_path, folder, disable_tqdm=True, **{**SEVEN, **given})
    return trainer.run(str(folder / "checkpoint-7"))


def test_it_is_trained_no_further(model_path, finished, capsys):
    before = kept(finished)
    capsys.readouterr()
    assert again(model_path, finished) == 0
    assert "all 7 optimizer steps are made: nothing is left to train" in capsys.readouterr().err
    assert kept(finished) == before
    assert steps_of(finished) == [7]


def test_what_a_kill_before_the_end_kept_from_it_is_written(model_path, finished):
    before = kept(finished)
    for name in ("model.safetensors", "trainer_state.json"):
        (finished / name).unlink()
    assert again(model_path, finished) == 0
    assert kept(finished)["model.safetensors"] == before["model.safetensors"]


def test_one_that_is_to_be_longer_goes_on(model_path, finished, capsys):
    longer = {"max_steps": 9, "lr_scheduler_kwargs": {"phases": "hold", "on_resume": "replace"}}
    before = kept(finished)
    assert again(model_path, finished, **longer) == 0
    assert "nothing is left" not in capsys.readouterr().err
    assert kept(finished)["model.safetensors"] != before["model.safetensors"]
