"""A launch that silently became another one is refused, through the real launcher."""

from __future__ import annotations

from pathlib import Path

import accelerate
import pytest
import transformers
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from packaging.version import Version

from tests.helpers.recipes import ROOT, TWO_PROCESSES

SHORT = {"max_steps": 2, "lr_scheduler_type": "cosine_floor"}


def with_changes(path: str, folder: Path, **changes: object) -> list[str]:
    """A launcher like one of ours, but for these changes."""
    changed = folder / "changed.yaml"
    changed.write_text(yaml.safe_dump({**yaml.safe_load((ROOT / path).read_text()), **changes}))
    return [str(changed)]


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_launch_config_is_one_of_accelerates(path):
    load_config_from_file(str(path))  # which refuses unknown ones, but looks at no mapping within
    config = yaml.safe_load(path.read_text())
    flags = vars(launch_command_parser().parse_args(["script.py"]))
    for part in ("deepspeed_config", "fsdp_config"):
        assert set(config.get(part, {})) <= set(flags), path


@pytest.mark.skipif(
    Version(accelerate.__version__) < Version("1.13"),
    reason="before 1.13 Accelerate makes one training of two processes of it, as requested",
)
def test_two_trainings_of_one_process_are_no_training_of_two(run_recipe):
    refused = run_recipe("sft", TWO_PROCESSES, ok=False, use_cpu=None, **SHORT)
    assert "2 processes were requested, but this training has 1 process" in refused.output
    assert "write `use_cpu: true` in the recipe's YAML" in refused.output


def test_a_file_that_starts_one_process_for_two_is_refused(run_recipe, tmp_path):
    launcher = with_changes(TWO_PROCESSES[0], tmp_path, distributed_type="MULTI_CPU", use_cpu=True)
    refused = run_recipe("sft", launcher, ok=False, **SHORT)
    assert "2 processes were requested, but this training has 1 process" in refused.output
    assert "`distributed_type: MULTI_GPU`" in refused.output


@pytest.mark.parametrize("recipe", ["sft", pytest.param("grpo", marks=pytest.mark.slow)])
def test_fsdp_that_would_be_plain_ddp_is_refused(run_recipe, tmp_path, recipe):
    launcher = with_changes("accelerate_configs/fsdp2.yaml", tmp_path, num_processes=2)
    refused = run_recipe(recipe, launcher, ok=False, **SHORT)
    assert "FSDP was requested, but nothing would be sharded" in refused.output
    assert "Traceback" not in refused.output.split("error: FSDP")[0]


def test_only_the_main_process_shows_progress(run_recipe):
    done = run_recipe("sft", TWO_PROCESSES, **SHORT)
    # One line for each step; a second process would write its own.
    assert [done.output.count(f"| {step}/2 |") for step in (1, 2)] == [1, 1]
    # A bar that transformers 4 does not have.
    bars = Version(transformers.__version__) >= Version("5")
    assert done.output.count("Writing model shards:   0%") == bars
