"""A run resumes from its own last complete checkpoint, and does not start in a folder with checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerCallback

from hf_sched.finetune.arguments import PipelineArguments
from hf_sched.finetune.checkpoints.selection import checkpoint_to_resume
from hf_sched.schedules.validation import ArgumentError
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


def resumed(folder: Path, wanted: object = "true", given: Any = None, *, overwrite: bool = False) -> str | None:
    args = SimpleNamespace(resume_from_checkpoint=wanted, output_dir=str(folder), world_size=1)
    return checkpoint_to_resume(args, PipelineArguments(overwrite=overwrite), given)


@pytest.mark.parametrize("file", ["trainer_state.json", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_checkpoint_with_a_file_cut_off_or_missing_is_skipped(copy, file, caplog):
    path = copy / "checkpoint-6" / file
    if file != "model.safetensors":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert resumed(copy, "auto") == str(copy / "checkpoint-4")
    path.unlink()
    assert resumed(copy) == str(copy / "checkpoint-4")
    assert f"checkpoint-6 is incomplete ({file} is missing or cut off" in caplog.text


def test_last_checkpoint_by_number_is_used(copy, caplog):
    assert resumed(copy) == str(copy / "checkpoint-6")
    (copy / "checkpoint-6").rename(copy / "checkpoint-10")
    (copy / "checkpoint-best").mkdir()
    assert resumed(copy) == str(copy / "checkpoint-10")
    assert not caplog.records


def test_without_a_complete_checkpoint_only_auto_starts_anew(copy):
    for step in (2, 4, 6):
        (copy / f"checkpoint-{step}" / "trainer_state.json").unlink()
    assert resumed(copy, "auto") is resumed(copy / "new", "auto") is None
    with pytest.raises(ValueError, match="there is no complete checkpoint"):
        resumed(copy)


def test_branch_needs_its_own_output_dir(copy):
    args = SimpleNamespace(resume_from_checkpoint=None, output_dir=str(copy), world_size=1, lr_scheduler_kwargs=None)
    branch = PipelineArguments(anneal_from=str(copy / "checkpoint-4"))
    with pytest.raises(ValueError, match="`output_dir` must be another folder than that of `anneal_from`"):
        checkpoint_to_resume(args, branch)


@pytest.mark.parametrize("counts", [(2, 1, 1), (4, 2, 2), (1, 2, 2)])
def test_resume_on_another_number_of_processes_keeps_the_newest_checkpoint(copy, counts):
    for step, processes in zip((2, 4, 6), counts, strict=True):
        rng = copy / f"checkpoint-{step}" / "rng_state.pth"
        if processes > 1:
            for rank in range(processes):
                shutil.copy(rng, rng.with_name(f"rng_state_{rank}.pth"))
            rng.unlink()
    assert resumed(copy, "auto") == str(copy / "checkpoint-6")


def test_checkpoint_records_its_number_of_processes(model_path, tmp_path, caplog):
    folder = tmp_path / "run"
    ModelTrainer(model_path, folder, max_steps=4).run()
    path = folder / "checkpoint-4" / "trainer_state.json"
    path.write_text(path.read_text().replace('"processes": 1', '"processes": 2'))
    assert resumed(folder) == str(folder / "checkpoint-2")
    assert "rng_state_1.pth is missing" in caplog.text


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def test_checkpoint_of_another_run_in_the_folder_is_not_resumed(model_path, tmp_path, caplog):
    folder = tmp_path / "run"
    ModelTrainer(model_path, folder, seed=0).run()
    first = json.loads((folder / "run.json").read_text())["run_id"]
    ModelTrainer(model_path, folder, StopAfter(3), seed=7).run()
    assert json.loads((folder / "run.json").read_text())["run_id"] != first
    for wanted in ("true", "auto"):
        assert resumed(folder, wanted) == str(folder / "checkpoint-2")
    assert "checkpoint-8 is not part of the run that" in caplog.text
    # A run that was killed before its first checkpoint has nothing to resume.
    ModelTrainer(model_path, folder, StopAfter(1), seed=8).run()
    with pytest.raises(ValueError, match="there is no complete checkpoint of this run"):
        resumed(folder)
    with pytest.raises(ArgumentError, match=r"holds the checkpoints of another run \(checkpoint-8, "):
        resumed(folder, "auto")


def test_checkpoints_after_the_one_that_a_run_went_back_to_are_not_resumed(model_path, tmp_path):
    folder = tmp_path / "run"
    ModelTrainer(model_path, folder).run()
    ModelTrainer(model_path, folder, StopAfter(3)).run(str(folder / "checkpoint-2"))
    assert resumed(folder) == str(folder / "checkpoint-2")
    ModelTrainer(model_path, folder, StopAfter(5)).run(str(folder / "checkpoint-2"))
    assert resumed(folder) == str(folder / "checkpoint-4")
    assert [one["step"] for one in json.loads((folder / "run.json").read_text())["sessions"]] == [0, 2]
    ModelTrainer(model_path, folder).run(str(folder / "checkpoint-4"))
    assert resumed(folder) == str(folder / "checkpoint-8")


@pytest.mark.parametrize("wanted", [None, "false", "other"])
def test_start_in_a_folder_with_checkpoints_needs_overwrite(copy, tmp_path, wanted):
    if wanted == "other":
        wanted = str(shutil.copytree(copy / "checkpoint-2", tmp_path / "other" / "checkpoint-2"))
    rule = r"`output_dir` holds the checkpoints of a previous run \(checkpoint-6, checkpoint-4, checkpoint-2\)"
    with pytest.raises(ArgumentError, match=rule) as rejected:
        resumed(copy, wanted)
    for remedy in ("--resume_from_checkpoint auto", "--overwrite true", "--output_dir NEW_FOLDER"):
        assert remedy in rejected.value.hint
    assert resumed(copy, wanted, overwrite=True) == (wanted if wanted != "false" else None)
    model = {"model_name_or_path": str(copy / "checkpoint-4")}
    with pytest.raises(ArgumentError, match="`overwrite` would delete the model of `model_name_or_path`"):
        resumed(copy, wanted, model, overwrite=True)
