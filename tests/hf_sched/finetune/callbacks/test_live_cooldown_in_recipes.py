"""A recipe that is told to cool down while it runs, by the real command from another process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_sched._run_files import COOLDOWN_STATUS, LEARNING_RATES, read_learning_rates
from hf_sched.audit import audit
from hf_sched.finetune.reports.pictures import pictures_of_run
from hf_sched.finetune.reports.report import write_report
from hf_sched.finetune.reports.run_folder import RunFolder
from hf_sched.plots import figures as plotting
from hf_sched.schedules.schedule import Schedule
from tests.helpers.recipes import GRPO, ONE_PROCESS, ROOT, SFT, TWO_PROCESSES, ZERO2
from tests.helpers.seen_by_ranks import OBSERVER

PEAK = {"sft": SFT["learning_rate"], "grpo": GRPO["learning_rate"]}
FAR = 100_000  # steps: nobody would wait for the end
GIVEN = {
    "lr_scheduler_type": "wsd",
    "warmup_steps": 4,
    "max_steps": FAR,
    "logging_steps": 5,
    "save_strategy": "steps",
    "save_steps": FAR,
    "per_device_train_batch_size": 4,
}


class Teller(threading.Thread):
    """Calls the command until the run has begun and takes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.said = folder, ""
        self.start()

    def run(self) -> None:
        words = ["cooldown", str(self.folder), "--duration", "7", "--shape", "linear", "--floor-ratio", "0.1", "--json"]
        until = time.monotonic() + 200
        while time.monotonic() < until:
            if (self.folder / COOLDOWN_STATUS).is_file():
                command = [sys.executable, "-m", "hf_sched", *words]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                self.said = done.stdout or done.stderr
                if done.returncode == 0:
                    return
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("recipe", "launcher"),
    [("grpo", ONE_PROCESS), ("sft", TWO_PROCESSES), pytest.param("sft", ZERO2, marks=pytest.mark.slow)],
    ids=["grpo", "sft on two processes", "sft under ZeRO-2"],
)
def test_a_recipe_is_told_by_the_command_and_ends_as_one_that_is_through(
    run_recipe: Any, tmp_path: Path, recipe: str, launcher: list[str]
) -> None:
    if launcher == ZERO2 and not shutil.which("c++"):
        pytest.skip("DeepSpeed compiles an operator when first used: install a C++ compiler to run this")
    processes = 1 if launcher == ONE_PROCESS else 2
    teller = Teller(tmp_path / "run")
    done = run_recipe(recipe, [*launcher, OBSERVER] if processes == 2 else launcher, **GIVEN)
    teller.join()
    answer = json.loads(teller.said)
    rows = [row for row in read_learning_rates(done.folder / LEARNING_RATES) if "step" in row]
    end = len(rows)
    assert answer["planned_end"] == FAR
    assert answer["end"] <= end < FAR  # the run may have looked again before it was told
    curve = Schedule.parse(f"warmup 4 | hold {end - 11} | decay 7; floor 0.1").curve(peak=PEAK[recipe])
    np.testing.assert_array_equal([row["rates"][0] for row in rows], curve)
    # On every rank, at the same steps.
    for rank in range(processes if processes > 1 else 0):
        seen = json.loads((done.folder / f"observed_{rank}.json").read_text())
        assert seen["world_size"] == processes
        assert seen["steps"] == list(range(1, end + 1))
        np.testing.assert_array_equal(np.array(seen["rates"])[:, 0], curve)
    # Saved, audited and reported as a run that is through.
    assert (done.folder / f"checkpoint-{end}").is_dir()
    assert (done.folder / "model.safetensors").is_file()
    told = f"told at step {end - 7} to cool down over 7 steps"
    assert told in done.output
    report = audit(done.folder)
    assert report.ok, report.lines
    assert report.deviation == 0
    write_report([RunFolder.load(done.folder)], {}, tmp_path / "report.md", as_html=False, only_compare=False)
    written = (tmp_path / "report.md").read_text()
    assert told in written
    assert "not finished" not in written
    for panel in (panel for picture in pictures_of_run(RunFolder.load(done.folder)) for panel in picture.panels):
        _, (ax,) = plotting.new_figure(1)
        panel.draw(ax)
        (line,) = (line for line in ax.lines if line.get_label() == "told to cool down")
        assert set(line.get_xdata()) == {end - 7 - 0.5}
    assert "**wrong**" not in written
    logged = json.loads((done.folder / "train_results.json").read_text())
    batch = GIVEN["per_device_train_batch_size"] * processes
    assert logged["train_samples_per_second"] / logged["train_steps_per_second"] == pytest.approx(batch, rel=1e-2)
