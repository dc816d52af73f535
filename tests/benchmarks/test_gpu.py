"""The GPU benchmark, with tiny models on a CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common.programs import BARE, RECIPE, Observed
from benchmarks.gpu import inputs, run
from benchmarks.gpu.report import report
from benchmarks.gpu.speed import DEFAULTS, SETTINGS, SHIPPED, figures, shipped_arguments

ROOT = Path(__file__).parents[2]


def test_shape_is_that_of_qwen():
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**inputs.SHAPE, num_key_value_heads=2, tie_word_embeddings=True)
    with torch.device("meta"):
        assert Qwen2ForCausalLM(config).num_parameters() == 494_032_768  # the model card says 0.49B


def test_rows_and_model_fit_together(tmp_path):
    from transformers import AutoTokenizer

    problems = inputs.make_problems(50)
    inputs.write_rows(problems, tmp_path / "rows")
    row = json.loads((tmp_path / "rows" / "sft" / "train.jsonl").read_text().splitlines()[0])
    assert row["completion"][0]["content"] == problems[0]["answer"]
    assert json.loads((tmp_path / "rows" / "grpo" / "train.jsonl").read_text().splitlines()[0])["answer"].isdigit()

    assert inputs.make_model(inputs.TINY, tmp_path / "model", problems) < 1e6
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text and ids[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert len(ids) < len(text) / 2


@pytest.mark.parametrize("kind", SETTINGS)
def test_shipped_config_keeps_its_batch_size(kind):
    shipped = shipped_arguments(kind)
    assert shipped["bf16"] is True and "use_vllm" not in shipped and "dataset_config" not in shipped
    assert shipped["per_device_train_batch_size"] * shipped.get("gradient_accumulation_steps", 1) == 8
    assert set(shipped) & {"use_cpu", "eval_strategy", "warmup_steps", "save_steps"} == set()


def test_tokens_per_second_exclude_the_first_steps():
    marks = [[[wall, 0.0, 0.0], [wall, 0.0, 0.0]] for wall in (0, 50, 100, 101, 103)]
    logs = [{"step": n, "num_tokens": tokens, "loss": 4.0 - n} for n, tokens in enumerate([800, 1600, 2000, 2800], 1)]
    found = figures(Observed(200.0, 1.0, 5, {"marks": marks, "logs": logs, "gpu_bytes": None}, Path()))
    assert found == {"tokens_per_second": 400.0, "step": 1.5, "peak_bytes": 5, "losses": [3.0, 2.0, 1.0, 0.0]}


def made_up(tokens, loss=2.0):
    fixed = {"step": 0.5, "peak_bytes": 2**30, "losses": [loss]}
    return [{"tokens_per_second": tokens * noise, **fixed} for noise in (1, 1.001) * 3]


@pytest.mark.parametrize(
    ("ours", "loss", "verdict", "same"),
    [(1000, 2.0, "met", "the same"), (900, 2.0000000000000004, "MISSED", "NOT the")],
)
def test_report_shows_each_setting_and_the_verdict(ours, loss, verdict, same):
    runs = {SHIPPED[BARE]: made_up(1000), SHIPPED[RECIPE]: made_up(ours, loss)}
    settings = {DEFAULTS: made_up(1000), "+ packing": made_up(1250), "+ kernels": made_up(1600)}
    header = {"device": "card", "matrix_rate": 60e12, "parameters": 10**9, "tiny": False, "versions": {"torch": "2"}}
    kinds = {"sft": {"runs": runs | settings, "failed": {"+ x": "no such thing"}}}
    text = report({**header, "date": "2026-01-01", "command": "run.py", "kinds": kinds})
    assert f"| {DEFAULTS} | 1,000 | 0.5 s | 1.00 GiB | 10.0% |  |" in text  # 6 x 1e9 x 1000 of 60e12
    assert "1.28 (1.28 to 1.28) of + packing" in text and f"1.6 (1.6 to 1.6) of {DEFAULTS}" in text
    assert f"0.99 times as fast as TRL's script: {verdict}; the losses are {same}" in text
    assert "| + x | not measured: | no such thing |" in text


@pytest.mark.parametrize(("words", "message"), [([], "add `--tiny`"), (["--tiny", "--steps", "3"], "at least 4")])
def test_wrong_command_line_is_rejected(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *words, "--output", str(tmp_path)])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_that_works_on_a_cpu_is_measured(kind, tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--tiny", "--output", str(tmp_path)]
    words = ["--kinds", kind, "--rounds", "1", "--steps", "4"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    printed = re.sub(r"(?m)^\[[-\d]+ [:,\d]+\] \[\w+\] \[real_accelerator\.py:.*\n", "", done.stdout)  # DeepSpeed's
    assert printed == (tmp_path / "gpu.md").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["kinds"][kind]
    assert set(found["failed"]) <= {setting.name for setting in SETTINGS[kind] if setting.needs}
    names = [setting.name for setting in SETTINGS[kind] if setting.name not in found["failed"]]
    assert list(found["runs"]) == [*SHIPPED.values(), DEFAULTS, *names]
    for (one,) in found["runs"].values():
        assert one["tokens_per_second"] > 0 and one["step"] > 0 and one["peak_bytes"] > 2**20
    ours, theirs = (found["runs"][SHIPPED[script]][0]["losses"] for script in (RECIPE, BARE))
    assert ours == theirs and len(ours) == 4
