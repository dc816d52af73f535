"""The GPU benchmark, at tiny size on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.task import ROOT
from benchmarks.gpu.inputs import make_inputs, make_model, read_problems
from benchmarks.gpu.run import BARE, DEFAULTS, RECIPE, Job, Plan, Workers, report
from tests.helpers.extras import require

MACHINE = {"card": "a card", "tflops": 800.0, "commit": {"commit": "abc"}, "versions": {"torch": "2.11"}}


def trained(tokens: float, peak: float = 10.0, losses: tuple[float, ...] = (2.0, 1.0)) -> dict[str, Any]:
    """A result of a training job."""
    sizes = {"peak": peak * 2**30, "estimate": 10 * 2**30, "resolved": {}}
    return {"tokens_per_second": tokens, "step": 0.2, "losses": [*losses], **sizes}


def results(recipe: float, bare: float, defaults: float, **of_recipe: Any) -> dict[str, Any]:
    """Results of a round of SFT."""
    return {
        "machine": MACHINE,
        "model 0.5B": {"parameters": 494_032_768},
        "SFT 0.5B, shipped config, round 1": trained(recipe, **of_recipe),
        f"SFT 0.5B, {BARE}, round 1": trained(bare),
        f"SFT 0.5B, {DEFAULTS}, round 1": trained(defaults),
    }


def test_report_compares_with_the_targets():
    text = report(results(70_000, 70_500, 3_500))
    assert "70,000 tokens/s, 0.2 s per step, 25.9% of the matrix rate | 60,000 tokens/s, 25% | met" in text
    assert f"| SFT, recipe and {BARE} | 0.993 times as fast, 1 pairs (0.993 to 0.993) | 0.99 | met |" in text
    assert f"| SFT, recipe and {DEFAULTS} | 20 times as fast, 1 pairs (20 to 20) | 5 | met |" in text
    assert "equal, bit for bit | equal | met" in text and "10.00 GiB, 1.00 times the estimate" in text
    assert text.startswith("a card, 800 TFLOP/s (bf16); torch 2.11; commit abc")


def test_report_shows_what_misses_its_target():
    text = report(results(50_000, 60_000, 12_000, peak=12.0, losses=(2.0, 1.1)))
    assert text.count("| MISSED |") == 5  # speed, memory, both comparisons, losses


def test_report_does_not_count_losses_of_zero_as_equal():
    every = {name: one | ({"losses": [0.0]} if "losses" in one else {}) for name, one in results(1, 1, 1).items()}
    assert "NOT equal, or all 0" in report(every)


def test_script_gets_what_the_recipe_resolved(tmp_path):
    own = "SFT 0.5B, shipped config, round 1"
    found = {own: {"resolved": {"per_device_train_batch_size": 16}}, "inputs": {"longest": {"sft": 9, "grpo": 4}}}
    jobs = {job.name: job for job in Plan("full", None, tmp_path, found)}
    bare, recipe, defaults = (
        jobs[f"SFT 0.5B, {name}, round 1"].task["arguments"] for name in (BARE, "shipped config", DEFAULTS)
    )
    assert bare["per_device_train_batch_size"] == 16 and "fast" not in bare and "lr_scheduler_kwargs" not in bare
    assert recipe["per_device_train_batch_size"] == 64 and recipe["fast"] and recipe["learning_rate"] == 1e-5
    assert {"fast", "learning_rate", "per_device_train_batch_size"}.isdisjoint(defaults)
    assert {job.worker for job in jobs.values()} == {RECIPE, BARE, DEFAULTS}
    assert jobs.keys() >= {"plugin: DDP", "plugin: FSDP2"}


def test_job_that_takes_too_long_is_stopped_and_its_worker_started_again(tmp_path):
    workers = Workers(tmp_path, tmp_path)
    try:
        answer = workers.run(Job("slow", RECIPE, 1, {"do": "machine"}), 0.1)
        assert answer == {"error": "stopped after 0 s"}
        assert workers.run(Job("wrong", RECIPE, 60, {"do": "nothing"}), 120) == {"error": "KeyError: 'nothing'"}
    finally:
        workers.end()


def run(script: str, *words: object) -> str:
    command = [sys.executable, f"benchmarks/gpu/{script}.py", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def test_whole_command_runs_on_a_cpu_and_continues(tmp_path):
    require("trl")
    words = ("--size", "tiny", "--minutes", 9, "--output", tmp_path / "out", "--work", tmp_path / "work")
    text = run("run", *words)
    assert text.strip() == (tmp_path / "out" / "table.md").read_text(encoding="utf-8").strip()
    for check in ("rates", "resume", "tensor learning rate", "DDP"):
        assert f"| plugin: {check} |" in text
    for kind in ("SFT", "GRPO"):
        assert f"| {kind}, losses of recipe and {BARE} | equal, bit for bit | equal | met |" in text
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert found["GRPO tiny, shipped config, round 1"]["tokens_per_second"] > 1
    # A second run repeats what failed, and nothing else.
    found["machine"] = {"error": "stopped"}
    (tmp_path / "out" / "results.json").write_text(json.dumps(found), encoding="utf-8")
    run("run", *words)
    again = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert again["machine"]["card"] == "CPU"
    assert {**again, "machine": None} == {**found, "machine": None}


@pytest.mark.slow
def test_learning_is_evaluated_with_intervals(tmp_path):
    problems = read_problems(None, 64)
    make_inputs(problems, tmp_path)
    make_model("tiny", tmp_path)
    data = Path(tmp_path, "data")
    data.mkdir()
    for split, rows in (("train", problems[:48]), ("test", problems[48:])):
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    words = ("--model", tmp_path / "tiny", "--data", data, "--output", tmp_path / "out", "--cpu")
    text = run("learn", *words, "--sft-steps", 4, "--grpo-steps", 2, "--problems", 8)
    evaluated = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert [*evaluated] == [str(tmp_path / name) for name in ("tiny", "out/sft", "out/grpo")]
    assert all(len(one["interval"]) == 2 for one in evaluated.values())
    assert "SFT: " in text and "evaluation: " in text
