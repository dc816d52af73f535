"""An incomplete checkpoint is skipped, and the one before it used."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_sched.finetune.arguments import PipelineArguments
from hf_sched.finetune.checkpoints.selection import checkpoint_to_resume
from tests.helpers.tiny_trainer import ModelTrainer


@pytest.fixture(scope="module")
def run(model_path, tmp_path_factory) -> Path:
    """A finished run with three checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    ModelTrainer(model_path, folder, max_steps=6).train()
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def resumed(folder: Path, wanted: object = "true") -> str | None:
    args = SimpleNamespace(resume_from_checkpoint=wanted, output_dir=str(folder), world_size=1)
    return checkpoint_to_resume(args, PipelineArguments())


@pytest.mark.parametrize("file", ["trainer_state.json", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_checkpoint_with_a_file_cut_off_or_missing_is_skipped(copy, file, caplog):
    path = copy / "checkpoint-6" / file
    if file != "model.safetensors":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert resumed(copy, "auto") == str(copy / "checkpoint-4")
    path.unlink()
    assert resumed(copy) == str(copy / "checkpoint-4")
    assert f"checkpoint-6 is incomplete ({file} is missing or cut off" in caplog.text


def test_checkpoint_without_the_random_state_of_a_process_is_skipped(copy, caplog):
    for step in (2, 4, 6):
        rng = copy / f"checkpoint-{step}" / "rng_state.pth"
        for rank in range(2 if step < 6 else 1):
            shutil.copy(rng, rng.with_name(f"rng_state_{rank}.pth"))
        rng.unlink()
    assert resumed(copy) == str(copy / "checkpoint-4")
    assert "rng_state_1.pth is missing" in caplog.text


def test_last_checkpoint_by_number_is_used(copy, caplog):
    assert resumed(copy) == str(copy / "checkpoint-6")
    (copy / "checkpoint-6").rename(copy / "checkpoint-10")
    (copy / "checkpoint-best").mkdir()
    assert resumed(copy) == str(copy / "checkpoint-10")
    assert not caplog.records


def test_without_a_complete_checkpoint_only_auto_starts_anew(copy):
    for step in (2, 4, 6):
        (copy / f"checkpoint-{step}" / "trainer_state.json").unlink()
    assert resumed(copy, "auto") is None
    with pytest.raises(ValueError, match="there is no complete checkpoint"):
        resumed(copy)


def test_branch_needs_its_own_output_dir(copy):
    args = SimpleNamespace(resume_from_checkpoint=None, output_dir=str(copy), world_size=1, lr_scheduler_kwargs=None)
    branch = PipelineArguments(anneal_from=str(copy / "checkpoint-4"))
    with pytest.raises(ValueError, match="`output_dir` must be another folder than that of `anneal_from`"):
        checkpoint_to_resume(args, branch)
