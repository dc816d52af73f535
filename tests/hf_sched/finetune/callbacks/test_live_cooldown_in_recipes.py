"""`hf-sched cooldown` makes a running recipe decay on every rank and finish normally."""

from __future__ import annotations

import json
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
from hf_sched.schedules.schedule import Schedule
from tests.helpers.recipes import BASE, ONE_PROCESS, ROOT, TWO_PROCESSES, ZERO2, needs_compiler
from tests.helpers.seen_by_ranks import OBSERVER

FAR = 100_000  # steps: without the request the run would take too long
GIVEN = {
    "lr_scheduler_type": "wsd",
    "warmup_steps": 4,
    "max_steps": FAR,
    "logging_steps": 5,
    "save_strategy": "steps",
    "save_steps": FAR,
    "per_device_train_batch_size": 4,
}
# Beside the schedule of the run, those of a parameter group and of a hyperparameter.
MORE = {
    "lr_groups": {"layers.0": {"schedule": "decay 90% | hold; floor 0.25"}},
    "weight_decay": 0.1,
    "schedules": {"weight_decay": "hold 50% | decay to 0"},
}


class Request(threading.Thread):
    """Calls the command until the run has started and accepts the request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.answer = folder, ""
        self.start()

    def run(self) -> None:
        words = ["cooldown", str(self.folder), "--duration", "7", "--shape", "linear", "--floor-ratio", "0.1", "--json"]
        until = time.monotonic() + 200
        while time.monotonic() < until:
            if (self.folder / COOLDOWN_STATUS).is_file():
                command = [sys.executable, "-m", "hf_sched", *words]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                self.answer = done.stdout or done.stderr
                if done.returncode == 0:
                    return
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("recipe", "launcher"),
    [
        pytest.param("dpo", ONE_PROCESS, id="dpo"),
        pytest.param("grpo", ONE_PROCESS, id="grpo", marks=pytest.mark.slow),
        pytest.param("sft", TWO_PROCESSES, id="sft-two", marks=pytest.mark.slow),
        pytest.param("dpo", TWO_PROCESSES, id="dpo-two", marks=pytest.mark.slow),
        pytest.param("sft", ZERO2, id="sft-zero2", marks=(needs_compiler, pytest.mark.slow)),
    ],
)
def test_recipe_cools_down_on_request(run_recipe: Any, tmp_path: Path, recipe: str, launcher: list[str]) -> None:
    processes = 1 if launcher == ONE_PROCESS else 2
    request = Request(tmp_path / "run")
    more = MORE if recipe == "sft" else {}
    done = run_recipe(recipe, [*launcher, OBSERVER] if processes == 2 else launcher, **GIVEN, **more)
    request.join()
    answer = json.loads(request.answer)
    rows = [row for row in read_learning_rates(done.folder / LEARNING_RATES) if "step" in row]
    end = len(rows)
    assert answer["planned_end"] == FAR
    assert answer["end"] <= end < FAR  # the run may have made more steps before it read the request
    curve = Schedule.parse(f"warmup 4 | hold {end - 11} | decay 7; floor 0.1").curve(peak=BASE[recipe]["learning_rate"])
    np.testing.assert_array_equal([row["rates"][0] for row in rows], curve)
    for rank in range(processes if processes > 1 else 0):
        seen = json.loads((done.folder / f"observed_{rank}.json").read_text())
        assert seen["world_size"] == processes
        assert seen["steps"] == list(range(1, end + 1))
        np.testing.assert_array_equal(np.array(seen["rates"])[:, 0], curve)
        if more:
            own = np.array(seen["rates"])[:, -1]
            assert own[-1] == 0.1 * BASE[recipe]["learning_rate"] < own[-8]
            assert (np.diff(own[3:]) < 0).all()
    assert not more or rows[-1]["rates"][-1] == 0.0 < rows[-2]["rates"][-1]  # the weight decay
    # Saved and audited like any finished run.
    assert (done.folder / f"checkpoint-{end}").is_dir()
    assert (done.folder / "model.safetensors").is_file()
    assert f"step {end - 7}" in done.output
    report = audit(done.folder)
    assert report.ok, report.lines
    assert report.deviation == 0
