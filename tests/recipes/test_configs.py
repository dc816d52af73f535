"""The shipped configurations parse strictly, and the first line of each launches it."""

from __future__ import annotations

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from hf_sched.finetune import config
from hf_sched.finetune.dpo import DPO
from hf_sched.finetune.grpo import GRPO
from hf_sched.finetune.pipeline import argument_types
from hf_sched.finetune.sft import SFT
from tests.helpers.recipes import ROOT

CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))
LAUNCHES = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
RECIPES = {recipe.kind: recipe for recipe in (SFT, GRPO, DPO)}


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_config_parses_and_its_first_line_launches_it(path, monkeypatch):
    words = path.read_text().splitlines()[0].removeprefix("# ").split()
    assert words[:3] == ["accelerate", "launch", "--config_file"]
    assert words[5:] == ["--config", f"recipes/configs/{path.name}"]
    assert all((ROOT / word).is_file() for word in (words[3], words[4], words[6]))

    monkeypatch.chdir(ROOT)
    # The models and data of the demos are written by earlier commands.
    monkeypatch.setattr(config, "_check_paths", lambda part: None)
    (kind,) = (kind for kind in RECIPES if f"/{kind}.py" in words[4])
    args = ["--config", str(path), "--use_cpu", "true"]
    RECIPES[kind]().check_given(config.given_arguments(args))
    _, training_args, *_ = config.parse(*argument_types(RECIPES[kind]()), args=args)
    assert training_args.lr_scheduler_type.value in ("cosine_floor", "warmup_cosine", "wsd")
    assert kind in path.stem


@pytest.mark.parametrize("path", LAUNCHES, ids=[path.stem for path in LAUNCHES])
def test_every_key_of_a_launch_config_is_one_of_accelerate(path):
    load_config_from_file(str(path))  # rejects unknown keys, but not in nested mappings
    launch = yaml.safe_load(path.read_text())
    flags = vars(launch_command_parser().parse_args(["script.py"]))
    for part in ("deepspeed_config", "fsdp_config"):
        assert set(launch.get(part, {})) <= set(flags), path


@pytest.mark.parametrize("kind", RECIPES)
def test_script_is_short_and_calls_the_recipe(kind):
    lines = (ROOT / "recipes" / f"{kind}.py").read_text().splitlines()
    assert len(lines) <= 40
    assert f"from hf_sched.finetune.{kind} import main" in lines
