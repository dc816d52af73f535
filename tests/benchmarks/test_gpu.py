"""The GPU benchmark, with tiny models on a CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common.programs import BARE, RECIPE, Observed
from benchmarks.gpu import inputs, matrix_rate, run
from benchmarks.gpu.matrix_rate import ModelCost
from benchmarks.gpu.report import report
from benchmarks.gpu.speed import DEFAULTS, SETTINGS, SHIPPED, Case, Speed, sequences_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("size", "parameters"), [("0.5b", 494_032_768), ("1.5b", 1_543_714_304)])
def test_shapes_are_those_of_qwen(size, parameters):
    # From Qwen2.5's model cards: 0.49B and 1.54B.
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    fixed = {"vocab_size": inputs.VOCABULARY, "num_key_value_heads": 2, "tie_word_embeddings": True}
    config = Qwen2Config(**inputs.SHAPES[size], **fixed)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    assert model.num_parameters() == parameters
    assert ModelCost.of(config, parameters).weights == parameters


def test_model_rows_and_cost(tmp_path):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM, AutoTokenizer

    problems = inputs.make_problems(50)
    inputs.write_rows(problems, tmp_path / "rows")
    row = json.loads((tmp_path / "rows" / "sft" / "train.jsonl").read_text().splitlines()[0])
    assert row["completion"][0]["content"] == problems[0]["answer"]
    assert json.loads((tmp_path / "rows" / "grpo" / "train.jsonl").read_text().splitlines()[0])["answer"].isdigit()

    inputs.make_model(inputs.TINY, tmp_path / "model", problems)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text and ids[-1] == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert len(ids) < len(text) / 2

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager")
    cost = ModelCost.of(model.config, model.num_parameters())
    length = 64
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(1, length, dtype=torch.long))
    # Eager attention also computes what is masked; biases and norms are not matrix products.
    assert counter.get_total_flops() / length == pytest.approx(cost.forward(2 * length), rel=0.02)


def test_matrix_rate():
    assert 1e8 < matrix_rate.measure_matrix_rate("cpu") < 1e15
    for name, rate in {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA L40S": 362e12, "NVIDIA L4": 121e12}.items():
        assert matrix_rate.published_rate(name) == rate
    assert matrix_rate.published_rate("AMD EPYC") is None


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("size", inputs.SHAPES)
def test_shipped_config_keeps_its_batch_size(size, kind):
    case = Case(size, kind, Path("model"), Path("rows"), "cuda", steps=5)
    arguments = case.shipped()
    assert arguments["bf16"] is True and "use_vllm" not in arguments and "dataset_config" not in arguments
    assert sequences_of(arguments) == 8
    assert set(arguments) & {"use_cpu", "eval_strategy", "warmup_steps", "save_steps"} == set()
    assert set(case.required()) < set(arguments) | {"reward_funcs"}
    assert sequences_of(case.required()) == 8  # the default of TrainingArguments


def test_tokens_per_second_exclude_the_first_steps():
    marks = [[[wall, 0.0, 0.0], [wall, 0.0, 0.0]] for wall in (0, 50, 100, 101, 103)]
    logs = [{"step": n, "num_tokens": tokens, "loss": 4.0 - n} for n, tokens in enumerate([800, 1600, 2000, 2800], 1)]
    observed = Observed(200.0, 1.0, 5, {"marks": marks, "logs": logs, "gpu_bytes": None}, Path())
    expected = Speed(tokens=400.0, step=1.5, length=150.0, peak_bytes=5, losses=[3.0, 2.0, 1.0, 0.0])
    assert Speed.of(observed, sequences=4) == expected


def made_up(tokens, loss=2.0):
    fixed = {"step": 0.5, "length": 200.0, "peak_bytes": 2**30, "losses": [loss]}
    return [{"tokens": tokens * noise, **fixed} for noise in (1, 1.001) * 3]


def page(speed):
    cost = {"weights": 10**9, "layers": 0, "width": 0}
    found = {"parameters": 10**9, "cost": cost, "runs": speed, "failed": {"+ x": "no such thing"}}
    header = {"device": "a card", "matrix_rate": 60e12, "published_rate": None, "tiny": False}
    header |= {"versions": {"torch": "2"}, "date": "2026-01-01", "command": "run.py"}
    return report({**header, "speed": {"0.5b sft": found, "1.5b grpo": "recipes/grpo.py ended with 1:\nout of memory"}})


@pytest.mark.parametrize(
    ("ours", "best", "same", "faster"), [(1000, 1600, "met", "met"), (900, 1300, "MISSED", "MISSED")]
)
def test_report_shows_each_setting_and_the_verdicts(ours, best, same, faster):
    runs = {SHIPPED[BARE]: made_up(1000), SHIPPED[RECIPE]: made_up(ours)}
    settings = {DEFAULTS: made_up(1000), "+ packing": made_up(1250), "+ kernels": made_up(best)}
    text = page(runs | settings)
    assert f"| {DEFAULTS} | 1,000 | 0.5 s | 1.00 GiB | 10.0% |  |" in text  # 6 x 1e9 x 1000 of 60e12
    assert f"{best / 1250:.4g}" in text and f"{best / 1000:.4g}" in text
    assert f"0.99 times as fast as TRL's script: {same}; the losses are the same, bit for bit." in text
    assert f'1.5 times TRL\'s defaults, with all settings up to "+ kernels": {faster}.' in text
    assert "| + x | not measured: | no such thing |" in text
    assert "### 1.5b grpo\n\nFailed: out of memory" in text


def test_report_shows_different_losses():
    runs = {SHIPPED[BARE]: made_up(9), SHIPPED[RECIPE]: made_up(9, loss=2.0000000000000004)}
    assert "the losses are NOT the same" in page(runs)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--device", "cpu"], "add `--tiny`"), (["--device", "cpu", "--tiny", "--steps", "3"], "must be at least 4")],
)
def test_wrong_command_line_is_rejected(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", *words, "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_that_works_on_a_cpu_is_measured(kind, tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--device", "cpu", "--tiny", "--output", str(tmp_path)]
    words = ["--sizes", "0.5b", "--kinds", kind, "--rounds", "1", "--steps", "4"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    printed = re.sub(r"(?m)^\[[-\d]+ [:,\d]+\] \[\w+\] \[real_accelerator\.py:.*\n", "", done.stdout)  # DeepSpeed's
    assert printed == (tmp_path / "gpu.md").read_text(encoding="utf-8")
    case = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["speed"][f"0.5b {kind}"]
    assert set(case["failed"]) <= {f"+ {setting.name}" for setting in SETTINGS[kind] if setting.needs}
    settings = [f"+ {setting.name}" for setting in SETTINGS[kind]]
    expected = [*SHIPPED.values(), DEFAULTS, *(name for name in settings if name not in case["failed"])]
    assert list(case["runs"]) == expected
    for (one,) in case["runs"].values():
        assert one["tokens"] > 0 and one["step"] > 0 and one["peak_bytes"] > 2**20
    ours, theirs = (case["runs"][SHIPPED[script]][0]["losses"] for script in (RECIPE, BARE))
    assert ours == theirs and len(ours) == 4
    plain = [one["length"] for name, (one,) in case["runs"].items() if "packing" not in name and "batch" not in name]
    assert len(set(plain)) == 1 or kind == "grpo"  # the same rows in all settings
    if kind == "sft":  # packed rows hold several problems
        assert case["runs"]["+ packing"][0]["length"] > 1.5 * case["runs"][DEFAULTS][0]["length"]
