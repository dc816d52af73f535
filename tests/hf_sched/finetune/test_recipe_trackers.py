"""A recipe whose arguments name no tracker uses trackio if it is installed, and a resume continues its run there."""

from __future__ import annotations

import trackio

import hf_sched.finetune.trackers as trackers


def test_resumed_recipe_continues_its_run_in_trackio(run_recipe):
    given = {"report_to": None, "project": "recipe", "lr_scheduler_type": "cosine_floor", "max_steps": 6}
    first = run_recipe("sft", **given, save_strategy="steps", save_steps=4)
    run_recipe("sft", **given, resume_from_checkpoint=str(first.folder / "checkpoint-4"))
    (run,) = trackio.Api().runs("recipe")
    assert run.name.startswith(f"{first.folder.name} 20")
    rows = trackio.sqlite_storage.SQLiteStorage.get_logs("recipe", run.name)
    assert [row["train/phase_steps_left/decay"] for row in rows if "train/loss" in row] == [5, 4, 3, 2, 1, 0, 1, 0]


def test_recipe_without_trackio_uses_no_tracker(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert trackers.default_trackers() == []
