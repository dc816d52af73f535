"""A model that is not there is told of before one is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trl import ModelConfig

from hf_sched.finetune.training import check_model


def test_a_model_that_is_there_is_taken(model_path: Path):
    check_model(ModelConfig(model_name_or_path=str(model_path)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "`model_name_or_path` must be given"),
        ("runs/nothing", "must be a hub name or the folder of a model, received 'runs/nothing'"),
        ("empty", "must be a hub name or the folder of a model, received"),
    ],
)
def test_one_that_is_not_is_named(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        check_model(ModelConfig(model_name_or_path=name))


def test_an_adapter_is_to_be_merged_first(tmp_path):
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base"}))
    with pytest.raises(
        ValueError, match=f"merge it first, `hf-sched merge {folder} --output"
    ):
        check_model(ModelConfig(model_name_or_path=str(folder)))
