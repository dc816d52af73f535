"""A merged model gives the logits of base model and adapter; adapters that change nothing are rejected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import hf_sched.finetune.merge as module
from hf_sched.cli import app
from hf_sched.finetune.merge import compare, merge
from hf_sched.schedules.validation import ArgumentError
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
    result = CliRunner().invoke(app, ["merge", str(adapter), "--output", str(output)], catch_exceptions=False)
    assert result.exit_code == 0 and "100.0% of the most likely tokens agree" in result.output
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


def changed(adapter: Path, folder: Path, change) -> Path:  # type: ignore[no-untyped-def]
    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: change(name, tensor) for name, tensor in load_file(file).items()}, file)
    return folder


def test_unusable_adapters_are_rejected(adapter: Path, task: Path, tmp_path: Path):
    zero = changed(adapter, tmp_path / "zero", lambda name, t: t * 0 if "lora_B" in name else t)
    empty = changed(adapter, tmp_path / "empty", lambda name, t: t[:0] if "lora_A" in name else t)
    broken = changed(adapter, tmp_path / "broken", lambda name, t: t * float("nan"))
    base = AutoModelForCausalLM.from_pretrained(task / "model")
    get_peft_model(base, LoraConfig(target_modules="all-linear")).save_pretrained(tmp_path / "untrained")
    nameless = changed(adapter, tmp_path / "nameless", lambda name, t: t)
    config = json.loads((nameless / "adapter_config.json").read_text())
    (nameless / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    for folder, words in (
        (zero, "`adapter` changes nothing"),
        (tmp_path / "untrained", "`adapter` changes nothing"),
        (empty, "`adapter` has 14 empty tensors of 28 .*stage3_gather_16bit_weights_on_model_save"),
        (broken, "`adapter` has NaN or infinity in 28 tensors"),
        (task / "model", "`adapter` must be a folder with adapter_config.json"),
        (nameless, "`adapter` must name its base model"),
    ):
        with pytest.raises(ArgumentError, match=words):
            merge(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArgumentError, match="`output` must be a folder that does not exist yet"):
        merge(adapter, zero)


def test_failed_verification_writes_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TOLERANCE", {torch.float32: -1.0})
    with pytest.raises(RuntimeError, match=r"more than rounding in torch\.float32 \(.*\); nothing was written"):
        merge(adapter, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_logits_are_compared_by_value_and_top_token():
    one = [torch.tensor([[1.0, 2.0], [4.0, 0.0]])]
    assert compare(one, one) == module.Comparison(0.0, 1.0)
    found = compare(one, [torch.tensor([[2.0, 1.0], [4.0, 0.0]])])
    assert (found.deviation, found.agreement) == (0.25, 0.5)
