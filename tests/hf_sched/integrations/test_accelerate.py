"""`prepare_scheduler`: one scheduler step per optimizer step in Accelerate loops, on one process and on two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import hf_sched

STEPS = 8
LOOP = """
import json, sys, warnings
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
import hf_sched

way, accumulation, split = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "split"
accelerator = Accelerator(
    cpu=True,
    gradient_accumulation_steps=accumulation,
    dataloader_config=DataLoaderConfiguration(split_batches=split),
)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
data = torch.utils.data.DataLoader(torch.ones(400, 2), batch_size=4)
model, optimizer, data = accelerator.prepare(model, optimizer, data)
scheduler = hf_sched.get_scheduler("cosine_floor", optimizer, 2, 8)
prepare = accelerator.prepare if way == "plain" else lambda s: hf_sched.prepare_scheduler(s, accelerator)
used = []
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    scheduler = prepare(scheduler)
    for batch in data:
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).mean())
            if accelerator.sync_gradients:
                used.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if len(used) == 8:
            break
if accelerator.is_main_process:
    messages = [str(w.message) for w in warned if "stepped beyond" in str(w.message)]
    print(json.dumps({"used": used, "warnings": messages, "processes": accelerator.num_processes}))
# A DDP model that is still alive when Python exits can abort the process (torch 2.13, gloo).
model, optimizer, data, scheduler = accelerator.free_memory(model, optimizer, data, scheduler)
accelerator.end_training()
"""


def loop(tmp_path: Path, processes: int, *words: str) -> dict:
    script = tmp_path / "loop.py"
    script.write_text(LOOP)
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--config_file", "accelerate_configs/cpu_2proc.yaml", "--main_process_port", "0"]
    command = [*(launch if processes == 2 else [sys.executable]), str(script), *words]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert result["processes"] == processes
    return result


def curve() -> list[float]:
    return hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=2).curve(peak=0.5).tolist()


@pytest.mark.parametrize(
    ("processes", "accumulation", "split"), [(1, "3", "whole"), (2, "1", "whole"), (2, "3", "whole"), (2, "1", "split")]
)
def test_each_optimizer_step_is_one_step_of_the_schedule(tmp_path, processes, accumulation, split):
    result = loop(tmp_path, processes, "ours", accumulation, split)
    assert result == {"used": curve(), "warnings": [], "processes": processes}


def test_scheduler_prepared_by_accelerate_ends_too_early_and_warns_once(tmp_path):
    result = loop(tmp_path, 2, "plain", "1", "whole")
    assert result["used"] != curve()
    (warning,) = result["warnings"]
    assert "stepped beyond its 8 steps" in warning
    assert "`hf_sched.prepare_scheduler`" in warning


def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.5)


def test_skipped_optimizer_step_keeps_the_rate_and_saved_state_resumes(tmp_path, monkeypatch):
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(*make())
    scheduler = hf_sched.prepare_scheduler(hf_sched.get_scheduler("cosine_floor", optimizer, 2, STEPS), accelerator)
    model(torch.ones(1, 2)).sum().backward()
    used = []
    for step in range(4):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # As a gradient scaler does if gradients overflowed.
        monkeypatch.setattr(optimizer, "_is_overflow", step == 1, raising=False)
        monkeypatch.setattr(type(optimizer), "step_was_skipped", property(lambda self: self._is_overflow))
        scheduler.step()
    np.testing.assert_array_equal(used, [curve()[k] for k in (0, 1, 1, 2)])
    accelerator.save_state(str(tmp_path))
    scheduler.step()
    accelerator.load_state(str(tmp_path))
    assert scheduler.get_last_lr() == [curve()[3]] == [optimizer.param_groups[0]["lr"]]


def test_prepared_scheduler_and_unprepared_optimizer_are_rejected():
    accelerator = Accelerator(cpu=True)
    _, optimizer = make()
    with pytest.raises(ValueError, match="`scheduler` belongs to an optimizer that `accelerator` has not prepared"):
        hf_sched.prepare_scheduler(hf_sched.get_scheduler("cosine_floor", optimizer, 2, STEPS), accelerator)
    optimizer = accelerator.prepare(optimizer)
    prepared = hf_sched.prepare_scheduler(hf_sched.get_scheduler("cosine_floor", optimizer, 2, STEPS), accelerator)
    with pytest.raises(ValueError, match="not prepared yet, received AcceleratedScheduler"):
        hf_sched.prepare_scheduler(prepared, accelerator)
