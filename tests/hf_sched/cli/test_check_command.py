"""`hf-sched check` as a user runs it: lines, JSON, exit status, audits."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import hf_sched
from hf_sched.cli.training_file import read_training_file
from hf_sched.plan.training_config import arguments_of
from tests.helpers import trainer as helpers
from tests.helpers.command_line import error_message, printed, run
from tests.helpers.extras import require

require("trl")  # most configurations are for its trainers

BROKEN = "learning_rate: 1e-4\nlerning_rate: 2\nlr_scheduler_kwargs:\n  num_cycle: 1\nlr_scheduler_type: cosine\n"


@pytest.fixture
def config(tmp_path):
    def write(text: str, name: str = "config.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_check_prints_a_line_or_object_per_finding_in_file_order(config):
    path = config(BROKEN)
    result = run("check", path, "--kind", "sft")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    places = [line.split(maxsplit=3)[:3] for line in lines[:3]]
    assert places == [
        [f"{path}:1", "warning", "learning_rate"],
        [f"{path}:2", "error", "lerning_rate"],
        [f"{path}:4", "error", "lr_scheduler_kwargs.num_cycle"],
    ]
    assert lines[-2:] == [f"{path}: assumed: 1 process", f"{path}: sft, errors: 2, warnings: 1"]
    # All messages begin in the same column.
    assert len({line.index(line.split(maxsplit=3)[3]) for line in lines[:3]}) == 1
    (found,) = json.loads(run("check", path, "--json", "--kind", "sft").stdout)
    assert (found["path"], found["kind"], found["ok"], found["assumed"]) == (path, "sft", False, ["1 process"])
    message = "is not an argument of SFT: did you mean `learning_rate`?"
    place = {"key": "lerning_rate", "value": 2, "line": 2}
    assert found["findings"][1] == {**place, "severity": "error", "message": message}


def test_exit_status_depends_on_errors_and_strict(config):
    right, odd = config("max_steps: 10\n", "right.yaml"), config("learning_rate: 1e-4\n", "odd.yaml")
    assert run("check", right, odd, "--kind", "sft").exit_code == 0
    assert run("check", odd, "--kind", "sft", "--strict").exit_code == 1
    assert run("check", right, odd, "--kind", "trainer").exit_code == 1  # no parser converts the text to a number


def test_options_reach_the_check(config):
    grpo = config("num_generations: 6\nper_device_train_batch_size: 4\n")
    assert run("check", grpo, "--num-processes", "3").exit_code == 0
    assert run("check", grpo, "--num-processes", "4").exit_code == 1
    launch = config("distributed_type: MULTI_GPU\nnum_processes: 4\n", "four.yaml")
    assert run("check", grpo, "--accelerate-config", launch).exit_code == 1
    sft = config("warmup_steps: 100\nper_device_train_batch_size: 8\nnum_train_epochs: 1\nmine: 1\nmax_length: 8\n")
    options = [sft, "--allow", "mine", "--num-processes", "1"]
    assert run("check", *options, "--dataset-size", "10000").exit_code == 0
    assert run("check", *options, "--dataset-size", "400").exit_code == 1
    result = run("check", sft, "--num-processes", "0")
    assert result.exit_code == 1 and "num_processes  must be a whole number, 1 or more" in result.stdout


def test_the_arguments_of_our_recipes_are_known(config):
    path = config("reward_funcs: [accuracy, {name: answer_format, format: hashes}]\nanneal_from: runs/x\n")
    known = read_training_file(path).fields.keys()
    assert {"anneal_from", "columns", "dry_run", "evaluate_on", "reward_funcs"} <= known
    assert json.loads(run("check", path, "--json").stdout)[0]["findings"] == []


def wrong(path: str, *words: str) -> list[tuple[str, str]]:
    (report,) = json.loads(run("check", path, "--json", *words).stdout)
    return [(finding["key"], finding["message"]) for finding in report["findings"] if finding["severity"] == "error"]


def test_every_wrong_reward_is_named_with_its_parameters(config):
    path = config("reward_funcs: [exact_anser, accuracy, {name: answer_format, fmt: x}, no_module.reward]\n")
    found = wrong(path)
    assert [key for key, _ in found] == ["reward_funcs"] * 3
    for (_, message), part in zip(
        found, ("'exact_answer'", "parameter `fmt`; it takes format", "no_module"), strict=True
    ):
        assert part in message
    path = config("reward_funcs: [{name: accuracy, weight: 0.5}]\nreward_weights: [1.0]\n")
    assert [key for key, _ in wrong(path)] == ["reward_weights"]
    assert [key for key, _ in wrong(config("evaluate_samples: -1\nreward_funcs: [accuracy]\n"))] == ["evaluate_samples"]


def test_missing_files_and_wrong_columns_and_rows_are_named(config):
    sft = "max_length: 64\nper_device_train_batch_size: 1\ndataset_name: {}\n"
    for missing in ("no_such.jsonl", "./no/such"):
        ((key, message),) = wrong(config(sft.format(missing)))
        assert key == "dataset_name" and missing in message
    rows = config('{"problem": "1 + 1?", "label": "2"}\n', "rows.jsonl")
    ((key, message),) = wrong(config(sft.format(rows)))
    assert key == "columns" and "problem, label" in message
    assert not wrong(config(sft.format(rows) + "columns: {question: problem, answer: label}\n"))
    ((key, message),) = wrong(config(sft.format(rows) + "columns: {question: problm, answer: label}\n"))
    assert key == "columns" and "problm" in message
    empty = config('{"question": "1 + 1?", "answer": "2"}\n{"question": "2 + 2?", "answer": ""}\n', "empty.jsonl")
    ((key, message),) = wrong(config(sft.format(empty)))
    assert key == "dataset_name" and "line 2" in message
    ((key, message),) = wrong(config(sft.format(rows) + "dataset_train_split: trian\neval_strategy: steps\n"))
    assert key in ("columns", "dataset_train_split", "dataset_test_split")
    # A model may be the result of an earlier run.
    (report,) = json.loads(run("check", config("max_length: 8\nmodel_name_or_path: runs/of/sft\n"), "--json").stdout)
    assert [(one["key"], one["severity"]) for one in report["findings"]] == [("model_name_or_path", "warning")]


def test_without_trl_a_file_for_trl_ends_in_one_line(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    arguments_of.cache_clear()
    path = config("max_steps: 10\nnum_generations: 4\n")
    for command in ("plan", "check"):
        for words in ([path], [path, "--kind", "grpo"]):
            assert "pip install trl" in error_message(command, *words)
        printed(command, path, "--kind", "trainer")
        printed(command, config("max_steps: 10\n", "plain.yaml"))


def test_the_folder_of_a_run_is_audited(model_path, tmp_path):
    def train(name: str, schedule: str, horizon: int) -> str:
        def optimizers(model):
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            return optimizer, hf_sched.get_scheduler(schedule, optimizer, 0, horizon)

        run = {"max_steps": 8, "learning_rate": 1e-3, "warmup_steps": 0, "lr_scheduler_type": schedule}
        helpers.train(model_path, tmp_path / name, optimizers=optimizers, callbacks=[hf_sched.LearningRateLog()], **run)
        return str(tmp_path / name)

    right, wrong = train("right", "cosine_floor", 8), train("wrong", "linear", 16)
    result = run("check", right)
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == "The learning rates are the planned ones."
    result = run("check", right, wrong)
    assert result.exit_code == 1 and "16 steps" in result.stdout
    found = json.loads(run("check", right, wrong, "--json").stdout)
    deviations = [(one["path"], one["ok"], one["deviation"] == 0) for one in found]
    assert deviations == [(right, True, True), (wrong, False, False)]
    constant = tmp_path / "plan.yaml"
    constant.write_text("max_steps: 8\nlearning_rate: 1.0e-3\nlr_scheduler_type: constant\n")
    assert "constant, 8 steps" in run("check", right, "--config", str(constant)).stdout
