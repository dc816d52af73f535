"""A resume is compared with its checkpoint, shown and rejected, before the model is loaded."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.helpers.recipes import run_main

STEPS = 6
RUN = {
    **{"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"floor_ratio": 0.1}},
    **{"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2},
}


@pytest.fixture
def finished(run_recipe) -> Path:
    return run_recipe("sft", **RUN).folder


@pytest.fixture
def without_weights(task, tmp_path) -> str:
    """A model that cannot be loaded, with its name in every checkpoint's run."""
    folder = Path(shutil.copytree(task / "model", tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    return str(folder)


def record(run: Path, **values: object) -> None:
    """Change what `run.json` has recorded."""
    content = json.loads((run / "run.json").read_text())
    arguments = values.pop("arguments", {})
    content["sessions"][-1].update(values)
    content["sessions"][-1]["arguments"].update(arguments)
    (run / "run.json").write_text(json.dumps(content))


def test_longer_run_is_rejected_before_loading_with_a_line_for_each_choice(run_recipe, finished, without_weights):
    record(finished, processes=2, arguments={"model_name_or_path": without_weights, "weight_decay": 0.1})
    given = {**RUN, "max_steps": 12, "model_name_or_path": without_weights, "resume_from_checkpoint": "auto"}
    for dry_run in (False, True):
        rejected = run_recipe("sft", ok=False, dry_run=dry_run, **given)
        assert rejected.returncode == 2 and "Traceback" not in rejected.output
        assert rejected.output.count("error:") == 1 and "WARNING" not in rejected.output
        assert re.search(r"steps +6 +-> +12", rejected.output)
        assert "processes 2 -> 1, `max_steps` 6 -> 12, `weight_decay` 0.1 -> 0.0" in rejected.output
        flags = [line for line in rejected.output.splitlines() if line.startswith("  --lr_scheduler_kwargs")]
        choices = [json.loads(re.search(r"'({.*})'", line)[1])["on_resume"] for line in flags]
        assert choices == ["keep", "replace", "continue", "rewarm"]
        assert [line.endswith("<- to train longer") for line in flags] == [False, False, False, True]
        assert f"--model_name_or_path {finished}/checkpoint-6" in rejected.output


def test_line_of_the_message_resumes_and_the_dry_run_shows_it(run_recipe, finished, tmp_path):
    rejected = run_recipe("sft", ok=False, resume_from_checkpoint="auto", **{**RUN, "max_steps": 12})
    line = next(line for line in rejected.output.splitlines() if line.endswith("<- to train longer"))
    words = ["--config", str(tmp_path / "run.yaml"), *shlex.split(line)[:2]]
    status, output = run_main("sft", *words, "--dry_run", "true")
    assert status == 0, output
    assert f"Resumes from {finished}/checkpoint-6: 6 of 12 steps are done, 6 are left" in output
    assert "3, after steps 8, 10, 12" in output
    rate = float(re.search(r"are left, from a learning rate of ([\d.e-]+)\.", output)[1])
    status, output = run_main("sft", *words)
    assert status == 0, output
    state = json.loads((finished / "trainer_state.json").read_text())
    rates = {row["step"]: row["learning_rate"] for row in state["log_history"] if "learning_rate" in row}
    assert rates[7] == pytest.approx(rate, rel=1e-3)
    assert max(rates) == 12


def test_dry_run_of_an_unchanged_resume_changes_nothing(run_recipe, finished):
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    checkpoint = str(finished / "checkpoint-4")
    dry = run_recipe("sft", dry_run=True, resume_from_checkpoint=checkpoint, **RUN)
    assert f"Resumes from {checkpoint}: 4 of 6 steps are done, 2 are left, from a learning rate of" in dry.output
    assert {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


def test_another_run_neither_starts_in_the_folder_nor_resumes_from_it(run_recipe, finished):
    other = {**RUN, "seed": 7}
    started = run_recipe("sft", ok=False, **other)
    assert "holds the checkpoints of a previous run (checkpoint-6" in started.output
    for wanted in ("true", "auto"):
        resumed = run_recipe("sft", ok=False, resume_from_checkpoint=wanted, **other)
        assert resumed.returncode == 2 and "differs from this one in `seed` 0 -> 7" in resumed.output
    record(finished, processes=2)
    explicit = run_recipe("sft", resume_from_checkpoint=str(finished / "checkpoint-4"), **other)
    assert "WARNING" in explicit.output and "processes 2 -> 1, `seed` 0 -> 7" in explicit.output

    anew = run_recipe("sft", overwrite=True, resume_from_checkpoint="auto", **{**other, "save_steps": 6, "seed": 8})
    assert [path.name for path in anew.folder.glob("checkpoint-*")] == ["checkpoint-6"]
    assert len(anew.logged("learning_rate")) == STEPS
    again = run_recipe("sft", resume_from_checkpoint="auto", **{**other, "seed": 8})
    assert "all 6 optimizer steps are done: nothing is left to train" in again.output


def test_resume_with_other_weights_is_rejected_before_loading(run_recipe, finished):
    given = {**RUN, "use_peft": True, "lora_target_modules": "all-linear", "resume_from_checkpoint": "auto"}
    rejected = run_recipe("sft", ok=False, **given)
    assert rejected.returncode == 2 and "checkpoint-6, which holds a whole model" in rejected.output


def test_run_by_epochs_is_compared_by_the_length_of_the_checkpoint(run_recipe, task, tmp_path):
    rows = (task / "sft" / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(rows[:40]))
    given = {**RUN, "max_steps": None, "num_train_epochs": 1, "packing": True}
    given["dataset_name"] = str(tmp_path / "few.jsonl")
    whole = run_recipe("sft", **given)
    steps = len(whole.logged("learning_rate"))
    assert steps < 5  # of 40 rows without packing
    checkpoint = str(whole.folder / f"checkpoint-{steps}")
    resumed = run_recipe("sft", resume_from_checkpoint=checkpoint, **given)
    assert "nothing is left to train" in resumed.output
    longer = run_recipe("sft", ok=False, resume_from_checkpoint=checkpoint, **{**given, "num_train_epochs": 2})
    assert longer.returncode == 2 and re.search(rf"steps +{steps} +-> +{2 * steps}\n", longer.output)
