"""A loop with Accelerate and `get_scheduler`: `train_with_get_scheduler.py OUTPUT_DIR LIBRARY NAME [JSON]`."""

import importlib
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

folder, library, name = sys.argv[1:4]
options = json.loads(sys.argv[4]) if sys.argv[4:] else {}
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
get_scheduler = importlib.import_module(f"{library}.optimization").get_scheduler
scheduler = get_scheduler(name, optimizer=optimizer, num_warmup_steps=2, num_training_steps=8, **options)
model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
rates = []
for _ in range(8):
    accelerator.backward(model(torch.ones(1, 2)).sum())
    rates.append(optimizer.param_groups[0]["lr"])
    optimizer.step()
    scheduler.step()
(Path(folder) / "rates-0.json").write_text(json.dumps(rates))
