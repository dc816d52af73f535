"""What is said of memory before a run, and what would fit instead, is so."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
import yaml
from trl import ModelConfig, SFTConfig

from hf_sched.finetune.memory import check as memory_check
from hf_sched.finetune.memory import command as memory
from hf_sched.finetune.memory import estimate
from hf_sched.finetune.memory.alternatives import alternatives

ROWS = [{"text": "sort 52913" * 100}]


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A model of some blocks: with a single one there is nothing to save by checkpointing."""
    from hf_sched.finetune.demo.sorting_task import save_model

    folder = tmp_path_factory.mktemp("deep")
    save_model(folder, layers=8, width=64, seed=0)
    return folder


@pytest.fixture
def config(deep, tmp_path):
    """A recipe of a GPU, as far as its file says."""
    file = tmp_path / "recipe.yaml"
    arguments = {
        "model_name_or_path": str(deep),
        "dataset_name": "nowhere",
        "bf16": True,
        "max_length": 1024,
        "per_device_train_batch_size": 16,
        "gradient_checkpointing": False,
    }
    file.write_text(f"# accelerate launch recipes/sft.py --config {file}\n{yaml.safe_dump(arguments)}")
    return str(file)


def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["memory.py", *words])
    try:
        status = memory.main()
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def memory_of(size: int) -> str:
    return f"{size // 10**6}MB"


def test_the_command_shows_each_part_and_adds_them_up(config, monkeypatch, capsys):
    words = ["--config", config, "--accelerate_config", "accelerate_configs/zero2.yaml", "--num_processes", "2"]
    status, said = run(monkeypatch, capsys, *words, "--gpu_memory", "80GB")
    assert status == 0 and "ZeRO-2, 2 processes, 16 x 1024 tokens" in said and "it fits" in said
    assert "- every batch has its full number of rows" in said
    status, said = run(monkeypatch, capsys, *words, "--json", "--max_length", "512")
    found = json.loads(said)
    assert status == 0 and found["fits"] is None
    assert found["total"] == sum(found["moments"][found["peak"]].values())
    assert set(found["moments"]) == {"forward and backward pass", "gradients reduced", "optimizer step"}
    assert {"weights", "float32 master weights", "optimizer states", "DeepSpeed's bucket"} <= set(
        found["moments"][found["peak"]]
    )


def test_what_does_not_fit_is_told_with_what_does(config, monkeypatch, capsys):
    settings = memory.settings_of_file(config, prompt=1)
    whole = estimate(settings).total
    device = (whole + estimate(settings.but(batch=8, accumulation=2)).total) // 2
    status, said = run(monkeypatch, capsys, "--config", config, "--gpu_memory", memory_of(device))
    assert status == 1 and "it will not fit" in said
    assert "`gradient_checkpointing: true`" in said
    assert "`per_device_train_batch_size: 8` and `gradient_accumulation_steps: 2`" in said
    for other in alternatives(settings, device):
        assert other.estimate.total <= device
    # Following the advice makes it fit.
    flags = [
        "--per_device_train_batch_size",
        "8",
        "--gradient_accumulation_steps",
        "2",
        "--gpu_memory",
        memory_of(device),
    ]
    status, said = run(monkeypatch, capsys, "--config", config, *flags)
    assert status == 0


def test_where_no_single_change_is_enough_several_are_told_together(config):
    settings = memory.settings_of_file(config, prompt=1)
    small = estimate(settings.but(batch=1, accumulation=16, checkpointing=True)).total
    found = alternatives(settings, small)
    assert len(found) == 1 and found[0].estimate.total <= small
    assert found[0].text.startswith("`gradient_checkpointing: true` with `per_device_train_batch_size: 1`")
    assert alternatives(settings, 2**20) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu_memory", "much"], "`--gpu_memory` must be a size such as 80GB or 24GiB, received 'much'"),
        (["--per_device_batch", "4"], "no argument `per_device_batch`"),
        (["--accelerate_config", "nowhere.yaml"], "`--accelerate_config` must be a YAML file that exists"),
        (["--optim", "lomo"], "`optim` must be one of adamw_torch"),
        (["--max_length", "null"], "`max_length` must be a number of tokens, received None"),
    ],
)
def test_wrong_arguments_are_one_clear_error(config, monkeypatch, capsys, words, message):
    status, said = run(monkeypatch, capsys, "--config", config, *words)
    assert status == 2 and message in said and len(said.splitlines()) == 1


def check(model_path: Any, tmp_path: Any, capsys: Any, *, in_full: bool = True, **given: Any) -> str:
    args = SFTConfig(tmp_path, use_cpu=True, bf16=False, report_to="none", **given)
    memory_check.check_memory("sft", args, ModelConfig(str(model_path)), ROWS, in_full=in_full)
    return str(capsys.readouterr().out)


def test_a_recipe_on_a_cpu_says_it_where_a_plan_is_asked_for(model_path, tmp_path, capsys):
    said = check(model_path, tmp_path, capsys)
    assert "Memory of each process" in said
    assert check(model_path, tmp_path, capsys, in_full=False) == ""


def test_under_zero3_it_waits_for_no_other_process(model_path, tmp_path, capsys):
    """One process of each machine estimates; transformers would have it make its part of the model with the others."""
    pytest.importorskip("deepspeed")
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    kept = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    try:
        assert is_deepspeed_zero3_enabled()
        # Rows of a length that no other test has: an estimate that was made before would be taken again.
        assert "Memory of each process" in check(model_path, tmp_path, capsys, max_length=47)
        assert is_deepspeed_zero3_enabled()  # the run's own model is still sharded
    finally:
        del kept
    assert not torch.distributed.is_initialized()


def test_a_recipe_goes_on_where_it_may_fit_and_stops_where_it_cannot(model_path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory_check, "_memory_here", lambda args: (64 * 2**20, "there"))
    said = check(model_path, tmp_path, capsys, gradient_checkpointing=False)
    assert "by this estimate it will not fit; this would: " in said
    monkeypatch.setattr(memory_check, "_memory_here", lambda args: (2**12, "there"))
    with pytest.raises(ValueError, match=r"weights, gradients and optimizer alone take .* it cannot fit"):
        check(model_path, tmp_path, capsys)


def test_what_cannot_be_estimated_stops_no_run(model_path, tmp_path, capsys):
    said = check(model_path, tmp_path, capsys, optim="schedule_free_adamw")
    assert said.startswith("memory: not estimated (ValueError: `optim` must be one of")
