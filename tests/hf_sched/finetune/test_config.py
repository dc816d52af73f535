"""Wrong arguments of a recipe end it with one line, before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig

from hf_sched.finetune.config import check_arguments, given_arguments, parse
from tests.helpers.recipes import run_main

SFT_TYPES = (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig)


def write_config(folder: Path, **given: Any) -> list[str]:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"output_dir": str(folder / "run"), "use_cpu": True, "bf16": False, **given}))
    return ["--config", str(config)]


def training_arguments(folder: Path, **given: Any) -> Any:
    return parse(*SFT_TYPES, args=write_config(folder, **given))[1]


def test_schedule_arguments_of_file_and_command_line_are_merged_for_the_same_schedule(tmp_path):
    words = write_config(tmp_path, lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={"floor_ratio": 0.2})
    args = parse(*SFT_TYPES, args=words)[1]
    assert (args.lr_scheduler_type.value, args.lr_scheduler_kwargs) == ("cosine_floor", {"floor_ratio": 0.2})
    flags = ["--lr_scheduler_kwargs", '{"on_resume": "rewarm"}']
    both = {"floor_ratio": 0.2, "on_resume": "rewarm"}
    assert parse(*SFT_TYPES, args=[*words, *flags])[1].lr_scheduler_kwargs == both
    assert given_arguments([*words, *flags])["lr_scheduler_kwargs"] == both
    same = [*words, "--lr_scheduler_kwargs", '{"floor_ratio": 0.3}']
    assert parse(*SFT_TYPES, args=same)[1].lr_scheduler_kwargs == {"floor_ratio": 0.3}
    other = [*words, "--lr_scheduler_type", "cosine_restarts", "--lr_scheduler_kwargs", '{"num_cycles": 2}']
    assert parse(*SFT_TYPES, args=other)[1].lr_scheduler_kwargs == {"num_cycles": 2}
    flags_only = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false", *other[2:]]
    assert parse(*SFT_TYPES, args=flags_only)[1].lr_scheduler_kwargs == {"num_cycles": 2}


FLOOR = {"lr_scheduler_type": "cosine_floor", "max_steps": 10}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rat": 1e-4}, r"`learning_rat` is not an argument of SFT: did you mean `learning_rate`\?"),
        ({"frobnicate": 1}, r"`frobnicate` is not an argument of SFT or of TRL's script: leave it out \("),
        ({"num_generations": 8}, r"is an argument of GRPO and RLOO, not of SFT: leave it out \("),
        ({"max_seq_length": 512}, r"`max_seq_length` is not an argument of SFT: write `max_length: 512`"),
        ({"max_steps": 1.5}, r"`max_steps` must be a whole number, received 1.5 \(.*config.yaml, line \d+\)"),
        ({"lr_scheduler_type": "cosin_floor"}, r"received 'cosin_floor'; did you mean 'cosine_floor'"),
        ({**FLOOR, "lr_scheduler_kwargs": {"min_lr": "1e-3"}}, r"min_lr` must be at most the .* 2e-05, received 0.001"),
        ({"lr_scheduler_kwargs": "{floor_ratio: 0.1}"}, r"must be a mapping, a mapping in JSON, .*'\{floor_ratio: 0.1"),
        (
            {"dataset_name": "runs/demo/none"},
            r"`dataset_name` must be a hub name or a path .*, received 'runs/demo/none'",
        ),
        ({"resume_from_checkpoint": "/no/such"}, r"must be true, auto or a checkpoint's folder, received '/no/such'"),
    ],
)
def test_wrong_argument_is_named_in_one_line(tmp_path, given, message):
    status, printed = run_main("sft", *write_config(tmp_path, **given))
    assert status == 2
    (line,) = printed.splitlines()
    assert re.search(message, line), line


def test_all_wrong_arguments_are_reported_at_once_with_their_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", list)
    rewards = ["exact_anser", {"name": "answer_format", "fmt": 1}]
    given = {"max_steps": "x", "lerning_rate": 1, "reward_funcs": rewards, "report_to": ["wandb"]}
    given |= {"num_generations": 3, "per_device_train_batch_size": 8}
    config = write_config(tmp_path, **given, load_best_model_at_end=True, eval_strategy="steps", eval_steps=500)
    status, printed = run_main("grpo", *config, "--num_train_epochs", "x", "--evaluate_samples", "-1")
    assert (status, "usage:" in printed) == (2, False)
    lines = printed.splitlines()
    assert all(line.startswith("grpo: error: `") for line in lines)
    names = ["max_steps", "lerning_rate", "reward_funcs", "reward_funcs", "report_to", "num_generations"]
    names += ["load_best_model_at_end", "num_train_epochs", "evaluate_samples"]
    assert sorted(line.split("`")[1] for line in lines) == sorted(names)
    text = Path(config[1]).read_text().splitlines()
    for line in lines:
        name = line.split("`")[1]
        if name in ("num_train_epochs", "evaluate_samples"):  # flags
            assert ", line " not in line
        else:
            assert text[int(line.rpartition("line ")[2].rstrip(")")) - 1].startswith(name)


def test_what_a_check_only_warns_of_does_not_stop_a_recipe(tmp_path, caplog):
    text = {"max_steps": "100", "learning_rate": "1e-4", "warmup_steps": "0.1", "optim": "schedule_free_adamw"}
    flags = ["--eval_strategy", "no", "--run_name", "42", "--max_grad_norm", "1e0", "--report_to", "none"]
    (found,) = check_arguments("sft", [*write_config(tmp_path, **text), *flags])
    assert "requires a constant one" in found
    assert check_arguments("sft", ["--help"]) == []


def test_a_flag_counts_instead_of_the_file(tmp_path):
    config = write_config(tmp_path, max_steps="x", lr_scheduler_type="cosine_floor")
    assert check_arguments("sft", [*config, "--max_steps", "10"]) == []
    with pytest.raises(ValueError, match=r"^`warmup_steps` is a warmup of 10 steps in a run of 10"):
        check_arguments("sft", [*config, "--max_steps=10", "--warmup_steps=10"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "there is no file '.*c.yaml': give a YAML or JSON file"),
        ("max_steps 5\nseed: 0\n", r"c\.yaml: does not parse: .*line 2, column"),
        ("- max_steps\n", r"c\.yaml: must be a mapping of arguments .*, received \['max_steps'\]"),
    ],
)
def test_unreadable_config_is_named_in_one_line(tmp_path, config, message):
    path = tmp_path / "c.yaml"
    if config:
        path.write_text(config)
    status, printed = run_main("sft", "--config", str(path))
    assert status == 2
    (line,) = printed.strip().splitlines()
    assert re.search(message, line), line


def test_flags_override_the_file_and_are_read_as_yaml(tmp_path):
    words = write_config(tmp_path, max_steps=5, seed=1)
    given = given_arguments([*words, "--max-steps=7", "--reward_funcs", "a", '{"name": "b"}', "--bf16"])
    assert (given["max_steps"], given["seed"], given["bf16"]) == (7, 1, True)
    assert given["reward_funcs"] == ["a", {"name": "b"}]


@pytest.mark.filterwarnings("error::FutureWarning")
def test_default_activation_checkpointing_warns_of_nothing(tmp_path):
    args = training_arguments(tmp_path)
    assert args.gradient_checkpointing
    if hasattr(args, "activation_checkpointing"):
        assert not training_arguments(tmp_path, activation_checkpointing=False).gradient_checkpointing
