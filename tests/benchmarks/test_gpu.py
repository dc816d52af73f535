"""The GPU benchmark, with tiny models on a CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.common.programs import BARE, RECIPE, Observed
from benchmarks.common.task import ROOT
from benchmarks.gpu.run import DEFAULTS, SHIPPED, figures, report


def test_tokens_per_second_exclude_the_first_steps():
    marks = [[wall, 0.0] for wall in (0, 50, 100, 101, 103)]
    logs = [{"step": n, "num_tokens": tokens, "loss": 4.0 - n} for n, tokens in enumerate([800, 1600, 2000, 2800], 1)]
    record = {"marks": marks, "logs": logs, "gpu_bytes": None, "peak_bytes": 2**29}
    found = figures(Observed(200.0, record, Path()))
    assert found == {"tokens_per_second": 400.0, "step": 1.5, "peak_gib": 0.5, "losses": "[3.0, 2.0, 1.0, 0.0]"}


def test_report_shows_each_setting_and_a_slower_or_different_training():
    trainings = {SHIPPED[BARE]: 1000, SHIPPED[RECIPE]: 900, DEFAULTS: 1000, "+ packing": 1250}
    fixed = {"kind": "sft", "step": 0.5, "peak_gib": 1.0}
    rows = [
        {"training": name, "round": n, "tokens_per_second": rate, "losses": f"[{rate}]", **fixed}
        for name, rate in trainings.items()
        for n in range(6)
    ]
    text = report(pd.DataFrame(rows), "a card")
    assert f"| {DEFAULTS} | 1,000 | 0.5 s | 1.00 GiB |  |" in text
    assert f"1.25 (1.25 to 1.25) of {DEFAULTS}" in text
    assert "0.99 times as fast as TRL's script: MISSED; the losses are NOT the same" in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_every_setting_that_works_on_a_cpu_is_measured(kind, tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu.run", "--tiny", "--output", str(tmp_path)]
    words = ["--kinds", kind, "--rounds", "1", "--steps", "4"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith((tmp_path / "gpu.md").read_text(encoding="utf-8"))  # DeepSpeed may print before it
    runs = pd.read_csv(tmp_path / "gpu.csv").set_index("training")
    assert {*SHIPPED.values(), DEFAULTS, "+ no gradient checkpointing, bf16 weights"} < set(runs.index)
    assert (runs[["tokens_per_second", "step", "peak_gib"]] > 1e-3).all(axis=None)
    assert runs.loc[SHIPPED[RECIPE], "losses"] == runs.loc[SHIPPED[BARE], "losses"]
