"""A checkpoint that was being written when the run was killed is recognised, and the one before it used."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from hf_sched.finetune.checkpoints.selection import BranchArguments, checkpoint_to_resume, missing_part


@pytest.fixture(scope="module")
def run(model_path, tmp_path_factory) -> Path:
    """A finished run with three checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    tokens = torch.randint(6, 16, (16, 12), generator=torch.Generator().manual_seed(0))
    args = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", max_steps=6, save_steps=2, per_device_train_batch_size=4
    )
    model = AutoModelForCausalLM.from_pretrained(model_path)
    Trainer(model, args, train_dataset=[{"input_ids": row, "labels": row} for row in tokens]).train()
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def resumed(folder: Path, wanted: object = "true") -> str | None:
    args = SimpleNamespace(resume_from_checkpoint=wanted, output_dir=str(folder))
    return checkpoint_to_resume(args, BranchArguments())


FILES = ["trainer_state.json", "scheduler.pt", "rng_state.pth", "model.safetensors"]


@pytest.mark.parametrize("file", FILES)
def test_a_checkpoint_without_one_of_its_files_is_passed_over(copy, file):
    (copy / "checkpoint-6" / file).unlink()
    assert missing_part(copy / "checkpoint-6") == file
    with pytest.warns(UserWarning, match=rf"checkpoint-6 is not whole \({file} is missing or cut off"):
        assert resumed(copy) == str(copy / "checkpoint-4")


@pytest.mark.parametrize("file", FILES[:3])
def test_a_file_that_was_cut_off_is_as_good_as_none(copy, file):
    path = copy / "checkpoint-6" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match="checkpoint-6 is not whole"):
        assert resumed(copy, "auto") == str(copy / "checkpoint-4")


def test_the_random_numbers_of_every_process_must_be_there(copy):
    for step in (2, 4, 6):
        rng = copy / f"checkpoint-{step}" / "rng_state.pth"
        for rank in range(2 if step < 6 else 1):
            shutil.copy(rng, rng.with_name(f"rng_state_{rank}.pth"))
        rng.unlink()
    with pytest.warns(UserWarning, match="rng_state_1.pth is missing"):
        assert resumed(copy) == str(copy / "checkpoint-4")


@pytest.mark.filterwarnings("error")
def test_whole_checkpoints_are_used_the_last_first_by_number(copy):
    assert resumed(copy) == str(copy / "checkpoint-6")
    (copy / "checkpoint-6").rename(copy / "checkpoint-10")
    (copy / "checkpoint-best").mkdir()
    assert resumed(copy) == str(copy / "checkpoint-10")


def test_where_none_is_whole_there_is_none(copy):
    for step in (2, 4, 6):
        (copy / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.warns(UserWarning, match="is not whole"):
        assert resumed(copy, "auto") is None
    with pytest.warns(UserWarning, match="not whole"), pytest.raises(ValueError, match="there is no whole checkpoint"):
        resumed(copy)


def test_a_branch_needs_an_output_dir_of_its_own(copy):
    args = SimpleNamespace(resume_from_checkpoint=None, output_dir=str(copy), lr_scheduler_kwargs=None)
    branch = BranchArguments(anneal_from=str(copy / "checkpoint-4"))
    with pytest.raises(ValueError, match="`output_dir` must be another one than that of `anneal_from`"):
        checkpoint_to_resume(args, branch)
