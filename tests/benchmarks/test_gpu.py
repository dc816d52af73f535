"""The GPU benchmark, tiny and on a CPU: all that it does there but the device is what it does on a GPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common.programs import Observed
from benchmarks.common.scripts import BARE, RECIPE
from benchmarks.gpu import inputs, matrix_rate
from benchmarks.gpu import run as gpu
from benchmarks.gpu.matrix_rate import ModelCost
from benchmarks.gpu.speed import DEFAULTS, LADDERS, Case, Speed, sequences_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("size", "parameters"), [("0.5b", 494_032_768), ("1.5b", 1_543_714_304)])
def test_the_shapes_are_those_of_qwen(size, parameters):
    # Of Qwen2.5's model cards: 0.49B and 1.54B, 0.36B and 1.31B without embeddings.
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        **inputs.SHAPES[size],
        vocab_size=inputs.VOCABULARY,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    assert model.num_parameters() == parameters
    assert ModelCost.of(config, parameters).weights == parameters


def test_what_a_token_costs_is_what_torch_counts(tmp_path):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    inputs.make_model("0.5b", tmp_path, inputs.read_problems(None)[:50], tiny=True, tokenizer=None)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    cost = ModelCost.of(model.config, model.num_parameters())
    length = 64
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(1, length, dtype=torch.long))
    # Eager attention does not leave out what is not attended to, and biases and norms are no matrix product.
    counted, dense = counter.get_total_flops() / length, cost.forward(2 * length)
    assert counted == pytest.approx(dense, rel=0.02)


def test_the_matrix_rate_is_measured():
    assert 1e8 < matrix_rate.measure_matrix_rate("cpu") < 1e15
    assert matrix_rate.published_rate("NVIDIA H100 80GB HBM3") == 989e12
    assert matrix_rate.published_rate("NVIDIA L40S") == 362e12
    assert matrix_rate.published_rate("NVIDIA L4") == 121e12
    assert matrix_rate.published_rate("AMD EPYC") is None


def test_rows_are_made_for_trls_script_and_the_tokenizer_is_whole(tmp_path):
    from transformers import AutoTokenizer

    problems = inputs.read_problems(None)[:50]
    inputs.write_rows(problems, tmp_path / "rows")
    row = json.loads((tmp_path / "rows" / "sft" / "train.jsonl").read_text().splitlines()[0])
    assert row["completion"][0]["content"] == problems[0]["answer"]
    assert json.loads((tmp_path / "rows" / "grpo" / "train.jsonl").read_text().splitlines()[0])["answer"].isdigit()
    inputs.make_model("0.5b", tmp_path / "model", problems, tiny=True, tokenizer=None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text and ids[-1] == tokenizer.eos_token_id
    assert len(ids) < len(text) / 2


@pytest.mark.parametrize("kind", LADDERS)
@pytest.mark.parametrize("size", inputs.SHAPES)
def test_the_shipped_config_is_measured_at_its_own_batch(size, kind):
    case = Case(size, kind, Path("model"), Path("rows"), "cuda", steps=5)
    given = case.shipped()
    assert given["bf16"] is True and "use_vllm" not in given and "dataset_config" not in given
    assert sequences_of(given) == 8
    assert set(given) & {"use_cpu", "eval_strategy", "warmup_steps", "save_steps"} == set()
    assert set(case.defaults()) < set(given) | {"reward_funcs"}
    assert sequences_of(case.defaults()) == 8  # of TrainingArguments


def test_tokens_a_second_leave_the_first_steps_out():
    walls, cpu = [0, 50, 100, 101, 103], 0.0
    marks = [[[wall, cpu, cpu], [wall, cpu, cpu]] for wall in walls]
    logs = [{"step": n, "num_tokens": tokens, "loss": 4.0 - n} for n, tokens in enumerate([800, 1600, 2000, 2800], 1)]
    observed = Observed(200.0, 1.0, 5, {"marks": marks, "logs": logs, "gpu_bytes": None}, Path())
    expected = Speed(tokens=400.0, step=1.5, length=150.0, peak_bytes=5, losses=[3.0, 2.0, 1.0, 0.0])
    assert Speed.of(observed, sequences=4) == expected


def made_up(tokens, loss=2.0):
    fixed = {"step": 0.5, "length": 200.0, "peak_bytes": 2**30, "losses": [loss]}
    return [{"tokens": tokens * wobble, **fixed} for wobble in (1, 1.001) * 3]


def results(speed, learning=None):
    cost = {"weights": 10**9, "layers": 0, "width": 0}
    found = {"weights": "random", "parameters": 10**9, "cost": cost, "runs": speed, "failed": {"+ x": "no such thing"}}
    header = {"device": "a card", "matrix_rate": 60e12, "published_rate": None, "tiny": False}
    return {
        **header,
        **{
            "versions": {"torch": "2"},
            "date": "2026-01-01",
            "command": "gpu.py",
            "speed": {"0.5b sft": found},
            "learning": learning or {},
        },
    }


@pytest.mark.parametrize(
    ("ours", "best", "same", "faster"), [(1000, 1600, "met", "met"), (900, 1300, "MISSED", "MISSED")]
)
def test_the_page_says_what_gave_what_and_whether_the_bounds_are_met(ours, best, same, faster):
    page = gpu.report(
        results(
            {
                f"shipped config, {BARE}": made_up(1000),
                f"shipped config, {RECIPE}": made_up(ours),
                DEFAULTS: made_up(1000),
                "+ packing": made_up(1250),
                "+ kernels": made_up(best),
            }
        )
    )
    assert f"| {DEFAULTS} | 1,000 | 0.5 s | 1.00 GiB | 10.0% |  |" in page  # 6 x 1e9 x 1000 of 60e12
    assert f"{best / 1250:.4g}" in page and f"{best / 1000:.4g}" in page
    assert f"0.99 times as fast as TRL's script: {same}; their losses are the same, to the bit." in page
    assert f'1.5 times TRL\'s defaults, with all up to "+ kernels": {faster}.' in page
    assert "| + x | not measured: | no such thing |" in page


def test_the_page_tells_of_other_losses_and_of_what_failed():
    runs = {f"shipped config, {BARE}": made_up(9), f"shipped config, {RECIPE}": made_up(9, loss=2.0000000000000004)}
    assert "their losses are NOT the same" in gpu.report(results(runs))
    found = results({})
    found["speed"]["1.5b grpo"] = "recipes/grpo.py ended with 1:\nout of memory"
    assert "### 1.5b grpo\n\nFailed: out of memory" in gpu.report(found)


def test_the_page_has_the_accuracies():
    row = {"right": 10, "problems": 100, "exact_match": 0.1, "interval": [0.05, 0.17], "cut_off": 0, "compared": None}
    compared = {"difference": 0.1, "interval": [0.02, 0.18], "verdict": "better"}
    after = {**row, "exact_match": 0.2, "compared": compared}
    page = gpu.report(results({}, {"wsd": [row, after, after], "linear": "recipes/sft.py ended with 1:\nno memory"}))
    assert "| wsd | 10.0% (5.0% to 17.0%) | 20.0%" in page and "+10.0 points (+2.0 to +18.0): better" in page
    assert "| linear | failed: | no memory |" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu"], "add `--tiny`"),
        (["--device", "cpu", "--tiny", "--smollm2", "x"], "give its folder by `--gsm8k`"),
        (["--device", "cpu", "--tiny", "--steps", "3"], "`--steps` must be at least 4"),
        (["--device", "cpu", "--tiny", "--model", "7b=x"], "`--model` must be SIZE=FOLDER"),
    ],
)
def test_a_wrong_command_is_told_what_to_write(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words, "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", LADDERS)
def test_every_setting_that_a_cpu_knows_is_measured(kind, tmp_path):
    found = run(tmp_path, "--only", "speed", "--sizes", "0.5b", "--kinds", kind, "--rounds", "1", "--steps", "4")
    case = found["speed"][f"0.5b {kind}"]
    with_package = {f"+ {rung.name}" for rung in LADDERS[kind] if rung.needs}
    assert set(case["failed"]) <= with_package
    expected = [f"shipped config, {BARE}", f"shipped config, {RECIPE}", DEFAULTS]
    expected += [f"+ {rung.name}" for rung in LADDERS[kind] if f"+ {rung.name}" not in case["failed"]]
    assert list(case["runs"]) == expected
    for (one,) in case["runs"].values():
        assert one["tokens"] > 0 and one["step"] > 0 and one["peak_bytes"] > 2**20
    ours, theirs = (case["runs"][f"shipped config, {script}"][0]["losses"] for script in (RECIPE, BARE))
    assert ours == theirs and len(ours) == 4
    plain = [one["length"] for name, (one,) in case["runs"].items() if "packing" not in name and "batch" not in name]
    assert len(set(plain)) == 1 or kind == "grpo"  # the same rows, whatever the settings
    if kind == "sft":  # as many tokens a row as fit, and not a problem a row
        assert case["runs"]["+ packing"][0]["length"] > 1.5 * case["runs"][DEFAULTS][0]["length"]


@pytest.mark.slow
def test_a_model_learns_under_each_schedule_and_is_asked_before_and_after(tmp_path):
    problems = inputs.read_problems(None)
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    for split, rows in (("train", problems[:100]), ("test", problems[100:110])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs.make_model("0.5b", tmp_path / "model", problems, tiny=True, tokenizer=None)
    given = ["--smollm2", str(tmp_path / "model"), "--gsm8k", str(folder), "--problems", "10"]
    steps = ["--sft_steps", "3", "--grpo_steps", "2", "--schedules", "linear", "wsd"]
    found = run(tmp_path, "--only", "learning", *given, *steps)["learning"]
    assert list(found) == ["linear", "wsd"]
    for rows in found.values():
        assert [row["problems"] for row in rows] == [10, 10, 10]
        assert rows[0]["compared"] is None and all(row["compared"]["verdict"] for row in rows[1:])


def run(folder, *words):
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.run",
        "--device",
        "cpu",
        "--tiny",
        "--output",
        str(folder / "output"),
    ]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    greeting = r"(?m)^\[[-\d]+ [:,\d]+\] \[\w+\] \[real_accelerator\.py:.*\n"  # DeepSpeed's
    said = re.sub(greeting, "", done.stdout)
    assert said == (folder / "output" / "gpu.md").read_text(encoding="utf-8")
    return json.loads((folder / "output" / "gpu.json").read_text(encoding="utf-8"))
