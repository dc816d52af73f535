"""A merged model gives the logits of base model and adapter; adapters that change nothing are rejected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_sched.finetune.merge as module
from hf_sched.finetune.merge import merge
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.command_line import printed
from tests.helpers.recipes import run_main


@pytest.fixture(scope="module")
def adapter(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train an adapter for a few steps."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    config = folder.with_name("lora.yaml")
    config.write_text(
        f"model_name_or_path: {task / 'model'}\ndataset_name: {task / 'sft'}\noutput_dir: {folder}\nuse_peft: true\n"
        "lora_target_modules: all-linear\nlearning_rate: 0.01\nmax_steps: 4\nuse_cpu: true\nbf16: false\n"
        "report_to: none\nsave_strategy: 'no'\n"
    )
    status, output = run_main("sft", "--config", str(config))
    assert status == 0, output[-3000:]
    return folder


def test_merged_model_gives_the_logits_of_base_model_and_adapter(adapter: Path, task: Path, tmp_path: Path):
    output = tmp_path / "merged"
    assert "merged and verified" in printed("merge", adapter, "--output", output)
    merged = AutoModelForCausalLM.from_pretrained(output)
    base = AutoModelForCausalLM.from_pretrained(task / "model")
    tokenizer = AutoTokenizer.from_pretrained(output)
    ids = tokenizer("sort 3 1 2", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found = merged(ids).logits
        before = base(ids).logits.clone()
        expected = PeftModel.from_pretrained(base, str(adapter)).eval()(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - before).abs().max() > 0.01
    card = (output / "README.md").read_text()
    assert "hf_sched" in card and "base_model" not in card.partition("---\n\n")[0]  # a folder of this machine
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]


def changed(adapter: Path, folder: Path, matrix: str, change) -> Path:  # type: ignore[no-untyped-def]
    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: change(tensor) if matrix in name else tensor for name, tensor in load_file(file).items()}, file)
    return folder


def test_unusable_adapters_are_rejected(adapter: Path, task: Path, tmp_path: Path):
    zero = changed(adapter, tmp_path / "zero", "lora_B", lambda tensor: tensor * 0)
    empty = changed(adapter, tmp_path / "empty", "lora_A", lambda tensor: tensor[:0])
    base = AutoModelForCausalLM.from_pretrained(task / "model")
    get_peft_model(base, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path / "untrained")
    for folder, words in (
        (zero, "`adapter` changes nothing"),
        (tmp_path / "untrained", "`adapter` changes nothing"),
        (empty, "`adapter` has 14 empty tensors of 28 .*stage3_gather_16bit_weights_on_model_save"),
        (task / "model", "`adapter` must be a folder with adapter_config.json"),
    ):
        with pytest.raises(ArgumentError, match=words):
            merge(folder, tmp_path / "out")
    broken = changed(adapter, tmp_path / "broken", "lora_B", lambda tensor: tensor * float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        merge(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArgumentError, match="`output` must be a folder that does not exist yet"):
        merge(adapter, zero)


def test_failed_verification_writes_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TOLERANCE", {torch.float32: -1.0})
    with pytest.raises(RuntimeError, match=r"more than rounding in torch\.float32; nothing was written"):
        merge(adapter, tmp_path / "out")
    assert not list(tmp_path.iterdir())
