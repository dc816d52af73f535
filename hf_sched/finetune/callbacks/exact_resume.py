"""Makes a resume exact where the libraries are not: in a later epoch, and in the middle of a generation of GRPO.

- TRL's sampler draws the order of an epoch's prompts after those of all epochs before, whichever epoch a resume is in.
- transformers' sampler that groups by length draws from the global generator, whose state differs after a resume.
- Up to Accelerate 1.10 with transformers 4, a resume on one process repeats the order of the first epoch.
- A generation of GRPO serves `steps_per_generation * num_iterations` batches, and TRL keeps it in memory only. A resume
  in the middle would generate other completions, and would stay out of phase until the end of the run.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import send_to_device
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.utils import RepeatSampler

logger = logging.getLogger(__name__)


class ExactResume(TrainerCallback):
    """Restores the order of the data; saves and restores the completions of a generation that is not used up.

    `checkpoint` is the one that the run resumes from.
    """

    def __init__(self, trainer: Any, checkpoint: str | None) -> None:
        self._trainer = trainer
        self._checkpoint = checkpoint
        self._is_generating = hasattr(trainer, "_buffered_inputs")

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        _restore_order(train_dataloader, 0 if self._checkpoint is None else int(state.epoch))
        if self._checkpoint is not None and self._is_generating:
            self._restore_completions(args, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._is_generating and self._trainer._step % _batches_per_generation(args):
            path = _path(Path(args.output_dir, f"checkpoint-{state.global_step}"), args.process_index)
            temporary = path.with_suffix(".tmp")
            torch.save({"batches": self._trainer._step, "completions": self._trainer._buffered_inputs}, temporary)
            os.replace(temporary, path)

    def _restore_completions(self, args: Any, step: int) -> None:
        trained, batches = step * args.gradient_accumulation_steps, _batches_per_generation(args)
        if trained % batches == 0:
            return
        path = _path(Path(self._checkpoint or ""), args.process_index)
        files = len(list(path.parent.glob("completions_*.pt")))
        saved = torch.load(path, map_location="cpu", weights_only=True) if files == args.world_size else None
        if saved and len(saved["completions"]) == args.steps_per_generation:
            self._trainer._step = saved["batches"]
            self._trainer._buffered_inputs = send_to_device(saved["completions"], args.device)
            return
        self._trainer._step = trained  # the next generation begins where it would have
        exact = math.lcm(batches, args.gradient_accumulation_steps) // args.gradient_accumulation_steps
        logger.warning(
            f"{self._checkpoint} was saved in the middle of a generation and has no completions for {args.world_size} "
            "process(es): this run generates new ones, so it differs from an uninterrupted one. Checkpoints at "
            f"multiples of {exact} steps resume exactly (`save_steps: {exact}`)"
        )


def _restore_order(dataloader: Any, epoch: int) -> None:
    batches = getattr(dataloader, "batch_sampler", None)  # None for streamed data
    sampler = getattr(getattr(batches, "batch_sampler", batches), "sampler", None)
    if isinstance(sampler, LengthGroupedSampler):
        # A copy of the global generator as it is at the start, because that of the checkpoint is restored later. The
        # data loader draws a number before the sampler does, so the first epoch has the order of TRL's script.
        sampler.generator = torch.Generator()
        sampler.generator.set_state(torch.get_rng_state())
        torch.empty((), dtype=torch.int64).random_(generator=sampler.generator)
    if isinstance(sampler, (RepeatSampler, LengthGroupedSampler)):
        for _ in range(epoch):
            next(iter(sampler))  # draws the order of an epoch
    elif isinstance(sampler, SeedableRandomSampler):
        set_epoch = sampler.set_epoch
        sampler.set_epoch = lambda number: set_epoch(max(number, epoch))


def _batches_per_generation(args: Any) -> int:
    return int(args.steps_per_generation * args.num_iterations)


def _path(checkpoint: Path, rank: int) -> Path:
    return checkpoint / f"completions_{rank}.pt"
