"""GRPO learns the task of the demo, with any seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.helpers.recipes import ONE_PROCESS, ROOT, TWO_PROCESSES, finish


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grpo_lifts_held_out_exact_match_by_25_points(tmp_path: Path, seed: int):
    finish(
        ONE_PROCESS,
        ["-m", "hf_sched.finetune.demo.sorting_task", "--output_dir", str(tmp_path / "task"), "--seed", str(seed)],
        tmp_path,
    )
    places = {
        "sft": {"model_name_or_path": tmp_path / "task/model", "dataset_name": tmp_path / "task/sft"},
        "grpo": {"model_name_or_path": tmp_path / "sft", "dataset_name": tmp_path / "task/grpo"},
    }
    for recipe, paths in places.items():
        config = yaml.safe_load((ROOT / f"recipes/configs/demo_{recipe}.yaml").read_text())
        config |= {name: str(path) for name, path in paths.items()}
        config |= {"output_dir": str(tmp_path / recipe), "seed": seed, "save_strategy": "no"}
        (tmp_path / f"{recipe}.yaml").write_text(yaml.safe_dump(config))
        command = [f"recipes/{recipe}.py", "--config", str(tmp_path / f"{recipe}.yaml")]
        finish(TWO_PROCESSES, command, tmp_path / recipe)
    models = [str(tmp_path / "sft"), str(tmp_path / "grpo")]
    command = ["-m", "hf_sched", "evaluate", *models, "--data", str(tmp_path / "task/grpo")]
    command += ["--max-new-tokens", "10", "--output", str(tmp_path / "evaluation.json")]
    finish(ONE_PROCESS, command, tmp_path)
    before, after = (
        result["exact_match"] for result in json.loads((tmp_path / "evaluation.json").read_text()).values()
    )
    print(f"seed {seed}: {before:.1%} -> {after:.1%}")
    assert after - before >= 0.25, f"exact match {before:.1%} -> {after:.1%}"
