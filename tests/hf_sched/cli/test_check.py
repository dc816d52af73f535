"""`hf-sched check` as it is typed: lines, JSON, exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import hf_sched
from hf_sched.cli import app

BROKEN = "learning_rate: 1e-4\nlerning_rate: 2\nlr_scheduler_kwargs:\n  num_cycle: 1\nlr_scheduler_type: cosine\n"


def run(*words: str):
    return CliRunner().invoke(app, ["check", *words])


@pytest.fixture
def config(tmp_path):
    def write(text: str, name: str = "config.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_a_line_a_finding_in_the_order_of_the_file(config):
    path = config(BROKEN)
    result = run(path, "--kind", "sft")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    places = [line.split(maxsplit=3)[:3] for line in lines[:3]]
    assert places == [
        [f"{path}:1", "warning", "learning_rate"],
        [f"{path}:2", "error", "lerning_rate"],
        [f"{path}:4", "error", "lr_scheduler_kwargs.num_cycle"],
    ]
    assert lines[-1] == f"{path}: 2 errors, 1 warning, as sft"
    # In columns: all messages begin in the same one.
    assert len({line.index(line.split(maxsplit=3)[3]) for line in lines[:3]}) == 1


def test_exit_status_and_strict(config):
    right, odd = config("max_steps: 10\n", "right.yaml"), config("learning_rate: 1e-4\n", "odd.yaml")
    assert run(right, "--kind", "sft").exit_code == 0
    assert run(odd, "--kind", "sft").exit_code == 0
    assert run(odd, "--kind", "sft", "--strict").exit_code == 1
    assert run(right, odd, "--kind", "trainer").exit_code == 1  # where text is no number


def test_json(config):
    path = config(BROKEN)
    result = run(path, "--json", "--kind", "sft")
    assert result.exit_code == 1
    ((found),) = json.loads(result.stdout)
    assert (found["path"], found["kind"], found["ok"]) == (path, "sft", False)
    assert found["findings"][1] == {
        "key": "lerning_rate",
        "value": 2,
        "line": 2,
        "severity": "error",
        "message": "is no argument of SFT: did you mean `learning_rate`?",
    }


def test_options_reach_the_check(config):
    grpo = config("num_generations: 6\nper_device_train_batch_size: 4\n")
    assert run(grpo, "--world-size", "3").exit_code == 0
    assert run(grpo, "--world-size", "4").exit_code == 1
    sft = config("warmup_steps: 100\nper_device_train_batch_size: 8\nnum_train_epochs: 1\nmine: 1\nmax_length: 8\n")
    options = [sft, "--allow", "mine", "--world-size", "1"]
    assert run(*options, "--dataset-size", "10000").exit_code == 0
    assert run(*options, "--dataset-size", "400").exit_code == 1


def test_a_number_that_is_none(config):
    result = run(config("max_steps: 10\n"), "--world-size", "0")
    assert isinstance(result.exception, ValueError) and "`world_size` must be" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("[1, 2]", "must be a mapping"),
        ("a: [", "cannot be read"),
        ("base_model: x\ndatasets: []\n", "is a configuration of axolotl"),
    ],
)
def test_what_cannot_be_read_ends_with_status_2_and_one_line(config, tmp_path, text, said):
    path = config(text) if text is not None else str(tmp_path / "nothing.yaml")
    ended = subprocess.run([sys.executable, "-m", "hf_sched", "check", path], capture_output=True, text=True)
    assert ended.returncode == 2
    assert said in ended.stderr and ended.stderr.startswith("hf-sched: ")
    assert not ended.stdout


def test_the_folder_of_a_run_is_audited(model_path, tmp_path):
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    def train(name: str, **given):
        folder = tmp_path / name
        args = TrainingArguments(
            str(folder), max_steps=8, learning_rate=1e-3, logging_steps=1, use_cpu=True, report_to=[], **given
        )
        data = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8
        model = AutoModelForCausalLM.from_pretrained(model_path)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        other_horizon = (optimizer, hf_sched.get_scheduler("linear", optimizer, 0, 16))
        by_hand = {"optimizers": other_horizon} if name == "wrong" else {}
        trainer = Trainer(model, args, train_dataset=data, **by_hand)
        trainer.train()
        trainer.save_state()
        trainer.save_model()
        return str(folder)

    right, wrong = train("right", lr_scheduler_type="cosine_floor"), train("wrong", lr_scheduler_type="linear")
    picture = tmp_path / "audit.png"
    result = run(right, "--picture", str(picture))
    assert result.exit_code == 0 and picture.stat().st_size > 4000
    assert result.stdout.splitlines()[-1] == "The learning rates are the planned ones."
    result = run(right, wrong)
    assert result.exit_code == 1
    assert "of 16 steps" in result.stdout
    found = json.loads(run(right, wrong, "--json").stdout)
    assert [(one["path"], one["ok"], one["deviation"] == 0) for one in found] == [
        (right, True, True),
        (wrong, False, False),
    ]
    constant = tmp_path / "plan.yaml"
    constant.write_text("max_steps: 8\nlearning_rate: 1.0e-3\nlr_scheduler_type: constant\n")
    assert "constant, 8 steps" in run(right, "--config", str(constant)).stdout


def test_a_folder_that_is_no_run_is_answered(tmp_path):
    result = run(str(tmp_path))
    assert isinstance(result.exception, ValueError) and str(tmp_path) in str(result.exception)
