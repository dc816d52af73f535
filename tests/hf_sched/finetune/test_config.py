"""A recipe's arguments: what is wrong ends the program with one line, before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from trl import DatasetMixtureConfig, GRPOConfig, ModelConfig, ScriptArguments, SFTConfig

from hf_sched.finetune.checkpoints.selection import BranchArguments, checkpoint_to_resume
from hf_sched.finetune.config import parse
from hf_sched.finetune.grpo import GRPOScriptArguments
from tests.helpers.recipes import ROOT

SFT_TYPES = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)
GRPO_TYPES = (GRPOScriptArguments, GRPOConfig, ModelConfig, DatasetMixtureConfig)
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
CPU = ["--use_cpu", "true"]


def parse_yaml(tmp_path: Path, **given):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"output_dir": str(tmp_path / "run"), "use_cpu": True, "bf16": False, **given}))
    return parse(*SFT_TYPES, args=["--config", str(config)])


def test_schedule_arguments_may_come_as_yaml_or_as_json_on_the_command_line(tmp_path):
    _, args, *_ = parse_yaml(tmp_path, lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={"floor_ratio": 0.2})
    assert args.lr_scheduler_type.value == "cosine_floor"
    assert args.lr_scheduler_kwargs == {"floor_ratio": 0.2}
    flags = [
        "--lr_scheduler_type",
        "cosine_restarts",
        "--lr_scheduler_kwargs",
        '{"num_cycles": 2}',
        *CPU,
        "--bf16",
        "false",
    ]
    _, args, *_ = parse(*SFT_TYPES, args=["--output_dir", str(tmp_path), *flags])
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lerning_rate": 1e-4}, r"`lerning_rate` \(did you mean `learning_rate`\?\)"),
        ({"max_seq_length": 512}, r"no argument `max_seq_length`"),
        ({"max_steps": 1.5}, r"`max_steps` must be a whole number, received 1.5"),
        (
            {"lr_scheduler_type": "cosin_floor"},
            r"'cosin_floor' is not the name of a schedule; did you mean 'cosine_floor'",
        ),
        (
            {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"flor_ratio": 0.1}},
            r"no argument `flor_ratio` \(received 0.1\); did you mean 'floor_ratio'",
        ),
        (
            {"lr_scheduler_type": "cosine_floor", "max_steps": 10, "warmup_steps": 10},
            r"`num_warmup_steps` must be less than `num_training_steps` \(10\), received 10",
        ),
        (
            {
                "lr_scheduler_type": "cosine_floor",
                "max_steps": 10,
                "learning_rate": 1e-4,
                "lr_scheduler_kwargs": {"min_lr": "1e-3"},
            },
            r"`min_lr` must be at most the peak learning rate 0.0001, received 0.001",
        ),
        (
            {"model_name_or_path": "runs/no/such/model"},
            r"`model_name_or_path` must be a hub name or a path that exists",
        ),
        ({"dataset_name": "./nothing"}, r"`dataset_name` must be a hub name or a path that exists"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(tmp_path, capsys, given, message):
    with pytest.raises(SystemExit) as ended:
        parse_yaml(tmp_path, **given)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line), line


def test_a_config_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit):
        parse(*SFT_TYPES, args=["--config", "nope.yaml"])
    assert "`--config` must be a YAML file that exists, received 'nope.yaml'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("max_steps 5\nseed: 0\n", r"`--config` must be a YAML file, .*line 2, column"),
        (
            "output_dir: x\nlr_scheduler_kwargs: '{floor_ratio: 0.1}'\n",
            r"'\{floor_ratio: 0.1\}' must be JSON, .*double q",
        ),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, capsys, config, message):
    (tmp_path / "c.yaml").write_text(config)
    with pytest.raises(SystemExit) as ended:
        parse(*SFT_TYPES, args=["--config", str(tmp_path / "c.yaml"), *CPU, "--bf16", "false"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line), line


def test_the_beginning_of_a_flag_is_not_taken_for_the_flag(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse(*SFT_TYPES, args=["--output_dir", str(tmp_path), *CPU, "--bf16", "false", "--learning_rat", "1"])
    assert "`learning_rat` (did you mean `learning_rate`?)" in capsys.readouterr().err


def test_groups_that_do_not_fit_are_told_in_the_words_of_the_config(tmp_path, capsys):
    flags = ["--output_dir", str(tmp_path), "--per_device_train_batch_size", "3", *CPU, "--bf16", "false"]
    with pytest.raises(SystemExit):
        parse(*GRPO_TYPES, args=flags)
    told = capsys.readouterr().err
    assert "divisible by num_generations (8): it is `per_device_train_batch_size` times the processes" in told


def test_resuming_needs_a_checkpoint_unless_it_is_auto(tmp_path):
    def wanted(value: object) -> str | None:
        _, args, *_ = parse_yaml(tmp_path, resume_from_checkpoint=value)
        return checkpoint_to_resume(args, BranchArguments())

    assert wanted(None) is None
    assert wanted("auto") is None
    with pytest.raises(ValueError, match="no whole checkpoint in"):
        wanted("true")
    with pytest.raises(ValueError, match="must be true, auto or a checkpoint's folder, received '/no/such'"):
        wanted("/no/such")
    # Which of several it takes: test_checkpoints.py.


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_shipped_config_parses_strictly_and_its_first_line_launches_it(path, capsys, monkeypatch):
    launch = path.read_text().splitlines()[0]
    words = launch.removeprefix("# ").split()
    assert words[:3] == ["accelerate", "launch", "--config_file"]
    assert words[5] == "--config"
    assert words[6] == f"recipes/configs/{path.name}"
    assert all((ROOT / word).is_file() for word in (words[3], words[4], words[6]))

    monkeypatch.chdir(ROOT)
    if path.stem.startswith(("demo", "smollm2")):
        # Its model is made by a command of its own; here only the arguments count.
        monkeypatch.setattr("config._check_paths", lambda part: None)
    types = GRPO_TYPES if "grpo.py" in words[4] else SFT_TYPES
    script_args, training_args, *_ = parse(*types, args=["--config", str(path), *CPU])
    assert training_args.lr_scheduler_type.value in ("cosine_floor", "warmup_cosine", "wsd")
    assert bool(getattr(script_args, "reward_funcs", None)) == ("grpo" in path.stem)
