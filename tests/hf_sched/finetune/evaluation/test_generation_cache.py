"""What has been generated is kept through anything that ends a process, and used only for what it was made for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_sched.finetune.evaluation.generation_cache import Completion, Journal, identity

SETTINGS = {"model": "m", "decoding": "greedy", "weights": "w", "max_new_tokens": 10}
DONE = [((0, 0), Completion("1\n2 ü", True)), ((1, 0), Completion("", False))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal(tmp_path / "of" / "e.jsonl", SETTINGS).append(DONE)
    return tmp_path / "of" / "e.jsonl"


def test_what_was_written_is_read_again(path: Path):
    assert Journal(path, SETTINGS).done == dict(DONE)
    again = Journal(path, SETTINGS)
    again.append([((2, 0), Completion("x", True))])
    assert len(Journal(path, SETTINGS).done) == 3 == len(again.done)
    assert len(path.read_text().splitlines()) == 4, "the settings are written once"


def test_a_line_that_was_cut_off_anywhere_is_dropped(path: Path):
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(path, SETTINGS)
        assert journal.done == dict(DONE[: max(whole[:end].count(b"\n") - 1, 0)])
        journal.append(DONE)
        assert Journal(path, SETTINGS).done == dict(DONE)


@pytest.mark.parametrize("line", ["not json", "[]", '{"of": 1}', '{"settings": {}}', "null"])
def test_another_file_is_refused(path: Path, line: str):
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=rf"line 4 of '{path}' is not what an evaluation writes: move it away"):
        Journal(path, SETTINGS)


def test_other_settings_begin_anew_and_lose_nothing(path: Path):
    other = Journal(path, {**SETTINGS, "weights": "v", "max_new_tokens": 20})
    assert other.done == {} and other.changed == {"weights": ("w", "v"), "max_new_tokens": (10, 20)}
    other.append([((0, 0), Completion("other", True))])
    assert other.changed == {} and Journal(path, SETTINGS).changed == {}
    assert Journal(path, SETTINGS).done == dict(DONE)
    assert Journal(path, {**SETTINGS, "model": "another"}).changed == {}
    assert Journal(path, {**SETTINGS, "decoding": "sampled"}).changed == {}


def test_a_model_is_known_by_what_it_is(model_path: Path, tmp_path: Path):
    known = identity(str(model_path))
    copied = shutil.copytree(model_path, tmp_path / "copied")
    (copied / "evaluation.json").write_text("{}")
    (copied / "trainer_state.json").write_text("{}")
    assert identity(str(copied)) == known

    weights = load_file(copied / "model.safetensors")
    name = max(weights)
    weights[name] = weights[name] + torch.zeros_like(weights[name]).index_fill_(0, torch.tensor([0]), 1e-3)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert identity(str(copied)) != known

    template = shutil.copytree(model_path, tmp_path / "template")
    (template / "chat_template.jinja").write_text("{{ messages }}")
    assert identity(str(template)) != known


def test_an_adapter_on_another_base_is_another_model(model_path: Path, tmp_path: Path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    base = shutil.copytree(model_path, tmp_path / "base")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    known = identity(str(adapter))
    (base / "model.safetensors").write_bytes(b"trained anew")
    assert identity(str(adapter)) != known
