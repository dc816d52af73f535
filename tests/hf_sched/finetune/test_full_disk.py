"""A full disk: no file of status, learning rates, cooldown, provenance or output ends a training or lets it hang."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hf_sched
from hf_sched._run_files import COOLDOWN_STATUS, LEARNING_RATES, RUN
from hf_sched.callbacks import live_cooldown
from hf_sched.callbacks.cooldown_request import Request
from tests.helpers.full_disk import FreeDiskAtTheEnd, full_disk, set_full
from tests.helpers.live_cooldown import RequestAfter, write_request
from tests.helpers.recipes import TWO_PROCESSES
from tests.helpers.seen_by_ranks import OBSERVER
from tests.helpers.tiny_trainer import ModelTrainer

SCHEDULE = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": 2}, "save_strategy": "no"}


def write_request_on_free_disk(folder, request):
    set_full(False)
    write_request(folder, request)
    set_full(True)


def test_training_on_a_full_disk_makes_all_steps_and_saves_the_model(model_path, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(live_cooldown, "STATUS_INTERVAL", 0.0)
    request = RequestAfter(3, Request(2), write_request_on_free_disk)
    trainer = ModelTrainer(model_path, tmp_path, request, FreeDiskAtTheEnd(), **SCHEDULE, disable_tqdm=False)
    with full_disk():
        assert trainer.run() == 0
    assert trainer.state.global_step == 8
    assert (tmp_path / "model.safetensors").stat().st_size > 0
    for name in (RUN, LEARNING_RATES, COOLDOWN_STATUS):
        assert sum(f"{name} cannot be read or written: [Errno 27]" in message for message in caplog.messages) == 1
    rejected = [message for message in caplog.messages if message.startswith("cooldown request rejected ([Errno 27]")]
    assert len(rejected) == 1, "the request is removed"
    assert not list(tmp_path.glob("*.tmp")), "no parts of files are left"


@pytest.mark.slow
def test_full_disk_of_rank_0_ends_no_rank_and_none_waits(run_recipe, monkeypatch):
    monkeypatch.setenv("FULL_DISK_REQUEST_AT", "4")
    run = run_recipe("sft", [*TWO_PROCESSES, OBSERVER], max_steps=8, **SCHEDULE)
    planned = hf_sched.build("wsd", num_training_steps=8, decay=2).curve(peak=2e-3)
    for rank in range(2):
        seen = json.loads(Path(run.folder, f"observed_{rank}.json").read_text())
        np.testing.assert_allclose(np.array(seen["rates"])[:, 0], planned)
    assert run.output.count("cooldown request rejected ([Errno 27] File too large") == 1
    assert f"{RUN} cannot be read or written: [Errno 27]" in run.output
    assert (run.folder / "model.safetensors").is_file()
