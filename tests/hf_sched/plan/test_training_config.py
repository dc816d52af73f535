"""A configuration is read as it was written, and the trainer that it is for is told from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hf_sched.plan.training_config import KINDS, TrainingConfig
from hf_sched.schedules.validation import Number, Whole

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))


def read(tmp_path: Path, text: str, kind: str | None = None, name: str = "config.yaml") -> TrainingConfig:
    path = tmp_path / name
    path.write_text(text)
    return TrainingConfig.read(path, kind)


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_kind_of_a_shipped_config_is_that_of_its_recipe(path):
    config = TrainingConfig.read(path)
    assert config.kind == ("grpo" if "grpo" in path.stem else "sft")
    assert config.given == yaml.safe_load(path.read_text())
    assert config.comments.startswith("accelerate launch --config_file accelerate_configs/")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("# trl dpo --config this.yaml\nlearning_rate: 1.0e-6\n", "dpo"),
        ("# python -m trl.scripts.reward --config this.yaml\nlearning_rate: 1.0e-6\n", "reward"),
        ("# accelerate launch trl/scripts/grpo.py --config this.yaml\nlearning_rate: 1.0e-6\n", "grpo"),
        ("num_generations: 8\nbeta: 0.0\n", "grpo"),
        ("beta: 0.1\nmax_length: 512\n", "dpo"),
        ("packing: true\n", "sft"),
        ("learning_rate: 1.0e-5\n", "trainer"),
        # What stands further down is no launch line.
        ("learning_rate: 1.0e-5\n# as in recipes/grpo.py\nmax_length: 64\n", "sft"),
    ],
)
def test_the_kind_is_told_from_comment_or_keys(tmp_path, text, kind):
    assert read(tmp_path, text).kind == kind
    assert read(tmp_path, text, "rloo").kind == "rloo"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_arguments_of_a_trainer(kind):
    config = TrainingConfig(kind, {})
    assert {"learning_rate", "max_steps", "lr_scheduler_type", "output_dir"} <= set(config.fields)
    assert ("dataset_name" in config.fields) == (kind != "trainer")
    assert config.value("num_train_epochs") == 3.0


def test_what_is_written_wins_over_the_default_also_where_it_is_nothing(tmp_path):
    config = read(tmp_path, "# recipes/sft.py\nmax_length: null\nlearning_rate: 1e-5\nmax_steps: 1.5\n")
    assert config.value("max_length") is None
    assert TrainingConfig("sft", {}).value("max_length") == 1024
    assert config.value("learning_rate") == "1e-5"
    assert config.read_value("learning_rate", Number(0)) == 1e-5
    with pytest.raises(ValueError, match=r"`max_steps` must be a whole number, -1 or more, received 1.5"):
        config.read_value("max_steps", Whole(-1))
    assert config.get("no_such_argument") is None
    with pytest.raises(KeyError):
        config.value("no_such_argument")


def test_json_is_read_too(tmp_path):
    config = read(tmp_path, '{"learning_rate": 1e-5, "num_generations": 4}', name="config.json")
    assert (config.kind, config.given) == ("grpo", {"learning_rate": 1e-5, "num_generations": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", r"must be a mapping of arguments .* received \[1, 2\]"),
        ("", "must be a mapping of arguments .* received None"),
        ("a: b: c\n", "cannot be read"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there_and_a_wrong_kind_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file 'nope.yaml': give a YAML or JSON file"):
        TrainingConfig.read("nope.yaml")
    with pytest.raises(ValueError, match=r"`kind` must be one of trainer, sft, grpo.*received 'ppo'"):
        read(tmp_path, "learning_rate: 1.0e-5\n", "ppo")
