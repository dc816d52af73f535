"""`hf-sched check` as it is typed: lines, JSON, exit status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

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
