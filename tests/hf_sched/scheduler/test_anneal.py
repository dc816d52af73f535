"""`anneal_from`: a cooldown that branches off a run at a constant learning rate, in real trainings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from transformers import TrainingArguments

import hf_sched
from tests.helpers.trainer import PEAK, logged, train

SAVING = {"save_strategy": "steps", "save_steps": 2}
PARENTS = {
    "wsd": {"lr_scheduler_type": "wsd"},
    "builtin": {"lr_scheduler_type": "constant_with_warmup"},
    "half": {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold at 0.5"}, "warmup_steps": 3},
}


def digest(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module", params=PARENTS)
def parent(request, model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    return folder, train(model_path, folder, **SAVING, **PARENTS[request.param])[0], request.param


def test_branch_continues_the_run_and_cools_down(parent, model_path, tmp_path):
    folder, long_run, name = parent
    before = digest(folder)
    branch = hf_sched.anneal_from(folder / "checkpoint-8", 4, "linear")
    # The long run's warmup must not come back, under either of its names in transformers.
    ratio = "warmup_ratio" in TrainingArguments.__dataclass_fields__
    arguments = {"warmup_ratio" if ratio else "warmup_steps": 0.25, **SAVING, **branch}
    cooled, _ = train(model_path, tmp_path, resume=branch["resume_from_checkpoint"], **arguments)
    level = PEAK / 2 if name == "half" else PEAK
    assert logged(cooled, "learning_rate")[:8] == logged(long_run, "learning_rate")[:8]
    np.testing.assert_allclose(logged(cooled, "learning_rate")[8:], level * np.array([0.75, 0.5, 0.25, 0]), rtol=1e-12)
    # Weights, optimizer and data are the same: so is the loss of the first new step.
    assert logged(cooled, "loss")[:9] == logged(long_run, "loss")[:9]
    assert digest(folder) == before


def test_duration_may_be_a_fraction_of_the_new_run(parent):
    folder, *_ = parent
    branch = hf_sched.anneal_from(folder / "checkpoint-8", "20%", floor_ratio=0.1)
    assert branch["max_steps"] == 10
    assert branch["lr_scheduler_kwargs"]["phases"].endswith("| decay 2 1-sqrt")
    assert branch["lr_scheduler_kwargs"]["floor_ratio"] == 0.1
    assert hf_sched.anneal_from(folder / "checkpoint-8", "60%")["max_steps"] == 20


def test_checkpoint_must_be_at_a_constant_rate_and_arguments_valid(model_path, tmp_path):
    changing = "`checkpoint` must be a checkpoint at a constant learning rate"
    train(model_path, tmp_path / "wsd", **SAVING, lr_scheduler_type="wsd", lr_scheduler_kwargs={"decay": 4})
    for step in (2, 10, 12):  # rising, falling, at the end
        with pytest.raises(ValueError, match=changing):
            hf_sched.anneal_from(tmp_path / "wsd" / f"checkpoint-{step}")
    train(model_path, tmp_path / "cosine", **SAVING, lr_scheduler_type="cosine", warmup_steps=4, max_steps=6)
    with pytest.raises(ValueError, match=changing):  # at its peak, but only there
        hf_sched.anneal_from(tmp_path / "cosine" / "checkpoint-4")
    with pytest.raises(ValueError, match=r"`checkpoint` must be a checkpoint folder with trainer_state.json and sched"):
        hf_sched.anneal_from(tmp_path)
    for wrong, named in (({"duration": 0}, "duration"), ({"duration": "100%"}, "duration"), ({"shape": "up"}, "shape")):
        with pytest.raises(ValueError, match=f"`{named}` must be"):
            hf_sched.anneal_from(tmp_path / "wsd" / "checkpoint-6", **wrong)
