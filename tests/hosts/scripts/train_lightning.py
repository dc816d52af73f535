"""A Lightning Trainer that accumulates gradients: `train_lightning.py DEVICES OUTPUT_DIR`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

import hf_sched


class Regression(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.rates = []

    def training_step(self, batch):
        return self.layer(batch).square().mean()

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return hf_sched.lightning(self, optimizer, "cosine_floor:floor_ratio=0.2", warmup_steps=0.25)


devices, folder = int(sys.argv[1]), Path(sys.argv[2])


def train(checkpoint: Path | None = None) -> list[float]:
    """Train 8 optimizer steps, or those after a checkpoint; the learning rate of each."""
    module = Regression()
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=devices,
        accumulate_grad_batches=2,
        callbacks=[ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, DataLoader(torch.ones(32, 2), batch_size=2), ckpt_path=checkpoint)
    return module.rates


rates = train()
resumed = rates[:4] + train(folder / "step=4.ckpt")
rank = os.environ.get("LOCAL_RANK", "0")
for name, used in ((rank, rates), (f"{rank}-resumed", resumed)):
    (folder / f"rates-{name}.json").write_text(json.dumps(used))
