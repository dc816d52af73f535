"""`prepare_scheduler`: one scheduler step per optimizer step in Accelerate loops, on one process and on two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

import hf_sched

STEPS = 8
CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=2).curve(peak=0.5).tolist()
LOOPS = """
import json, warnings
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
import hf_sched


def loop(way, accumulation, split):
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
    used = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        is_plain = way == "plain"
        scheduler = accelerator.prepare(scheduler) if is_plain else hf_sched.prepare_scheduler(scheduler, accelerator)
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
    # A DDP model that is still alive when Python exits can abort the process (torch 2.13, gloo).
    model, optimizer, data, scheduler = accelerator.free_memory(model, optimizer, data, scheduler)
    return used, [str(w.message) for w in warned if "stepped beyond" in str(w.message)]


found = [loop(*case) for case in (("ours", 1, False), ("ours", 3, False), ("ours", 1, True), ("plain", 1, False))]
accelerator = Accelerator()
if accelerator.is_main_process:
    print(json.dumps([accelerator.num_processes, *found]))
accelerator.end_training()
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_each_optimizer_step_is_one_step_of_the_schedule(tmp_path, processes):
    (tmp_path / "loops.py").write_text(LOOPS)
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    launch += ["--config_file", "accelerate_configs/cpu_2proc.yaml", "--main_process_port", "0"]
    command = [*(launch if processes == 2 else [sys.executable]), str(tmp_path / "loops.py")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    count, *prepared, plain = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[")))
    assert count == processes
    assert prepared == [[CURVE, []]] * 3  # plainly, with accumulated gradients, with split batches
    if processes == 1:
        assert plain == [CURVE, []]
    else:  # Accelerate steps the scheduler once per process
        used, (warning,) = plain
        assert used[:3] == CURVE[:5:2]
        assert "stepped beyond its 8 steps" in warning and "`hf_sched.prepare_scheduler`" in warning


def test_skipped_optimizer_step_keeps_the_rate_and_saved_state_resumes(tmp_path, monkeypatch):
    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.5))
    scheduler = hf_sched.prepare_scheduler(hf_sched.get_scheduler("cosine_floor", optimizer, 2, STEPS), accelerator)
    model(torch.ones(1, 2)).sum().backward()
    used = []
    for step in range(4):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # As a gradient scaler does if gradients overflowed.
        monkeypatch.setattr(type(optimizer), "step_was_skipped", step == 1)
        scheduler.step()
    assert used == [CURVE[k] for k in (0, 1, 1, 2)]
    accelerator.save_state(str(tmp_path))
    scheduler.step()
    accelerator.load_state(str(tmp_path))
    assert scheduler.get_last_lr() == [CURVE[3]] == [optimizer.param_groups[0]["lr"]]
    with pytest.raises(ValueError, match="not prepared yet, received AcceleratedScheduler"):
        hf_sched.prepare_scheduler(scheduler, accelerator)
    unprepared = hf_sched.get_scheduler("cosine_floor", torch.optim.SGD(model.parameters(), lr=0.5), 2, STEPS)
    with pytest.raises(ValueError, match="`scheduler` belongs to an optimizer that `accelerator` has not prepared"):
        hf_sched.prepare_scheduler(unprepared, accelerator)
