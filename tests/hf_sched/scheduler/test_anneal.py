"""`anneal_from`: a cooldown that branches off a run at a constant rate, in real trainings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import hf_sched


def train(model_path: Path, folder: Path, **given) -> Trainer:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    tokens = torch.randint(6, 16, (64, 12), generator=torch.Generator().manual_seed(0))
    arguments = {"max_steps": 12, "learning_rate": 1e-2, "warmup_steps": 3, "save_steps": 2, **given}
    args = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", logging_steps=1, per_device_train_batch_size=4, **arguments
    )
    trainer = Trainer(model, args, train_dataset=[{"input_ids": row, "labels": row} for row in tokens])
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return trainer


def logged(trainer: Trainer, key: str) -> list[float]:
    return [row[key] for row in trainer.state.log_history if key in row]


def digest(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


PARENTS = {
    "wsd": {"lr_scheduler_type": "wsd"},
    "a built-in constant": {"lr_scheduler_type": "constant_with_warmup"},
    "a level held": {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold at 0.5"}},
}


@pytest.fixture(scope="module", params=PARENTS)
def parent(request, model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parent")
    return folder, train(model_path, folder, **PARENTS[request.param]), request.param


def test_the_run_goes_on_from_the_checkpoint_and_cools_down(parent, model_path, tmp_path):
    folder, trained, name = parent
    before = digest(folder)
    branch = hf_sched.anneal_from(folder / "checkpoint-8", 4, "linear")
    # The parent's share of warmup, which transformers up to 5.14 also knows by another name, does not come back.
    ratio = "warmup_ratio" in TrainingArguments.__dataclass_fields__
    cooled = train(model_path, tmp_path, **{"warmup_ratio" if ratio else "warmup_steps": 0.25, **branch})
    level = 5e-3 if name == "a level held" else 1e-2
    assert logged(cooled, "learning_rate")[:8] == logged(trained, "learning_rate")[:8]
    np.testing.assert_allclose(logged(cooled, "learning_rate")[8:], level * np.array([0.75, 0.5, 0.25, 0]), rtol=1e-12)
    # The same weights, optimizer and data: the loss of the first new step is that of the parent's.
    assert logged(cooled, "loss")[:9] == logged(trained, "loss")[:9]
    assert digest(folder) == before


def test_a_share_is_of_the_run_that_it_ends(parent):
    folder, *_ = parent
    branch = hf_sched.anneal_from(folder / "checkpoint-8", "20%", floor_ratio=0.1)
    assert branch["max_steps"] == 10
    assert branch["lr_scheduler_kwargs"]["phases"].endswith("| decay 2 1-sqrt")
    assert branch["lr_scheduler_kwargs"]["floor_ratio"] == 0.1
    assert hf_sched.anneal_from(folder / "checkpoint-8", "60%")["max_steps"] == 20  # the larger part of it


def test_only_a_constant_rate_is_branched_off(model_path, tmp_path):
    train(model_path, tmp_path, lr_scheduler_type="wsd", lr_scheduler_kwargs={"decay": 4})
    for step in (2, 10, 12):  # on its way up, on its way down, at the end
        with pytest.raises(ValueError, match="`checkpoint` must be a checkpoint at a constant learning rate"):
            hf_sched.anneal_from(tmp_path / f"checkpoint-{step}")
    with pytest.raises(
        ValueError, match=r"`checkpoint` must be a checkpoint folder with trainer_state.json and scheduler.pt"
    ):
        hf_sched.anneal_from(tmp_path)
    for wrong, named in (({"duration": 0}, "duration"), ({"duration": "100%"}, "duration"), ({"shape": "up"}, "shape")):
        with pytest.raises(ValueError, match=f"`{named}` must be"):
            hf_sched.anneal_from(tmp_path / "checkpoint-6", **wrong)


def test_a_built_in_cosine_at_the_top_of_its_warmup_is_no_constant_run(model_path, tmp_path):
    train(model_path, tmp_path, lr_scheduler_type="cosine", warmup_steps=4, max_steps=6)
    with pytest.raises(ValueError, match="`checkpoint` must be a checkpoint at a constant learning rate"):
        hf_sched.anneal_from(tmp_path / "checkpoint-4")
