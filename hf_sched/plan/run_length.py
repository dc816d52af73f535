"""The length of a run in batches and optimizer steps, counted as the Trainer counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import BOOLEAN, MAPPING, ArgumentError, Whole


@dataclass(frozen=True)
class Batching:
    """How the samples of an epoch are split into batches, and the batches into optimizer steps."""

    batch_size: int
    """Samples of a batch on one process."""
    world_size: int = 1
    accumulation: int = 1
    drop_last: bool = False

    @classmethod
    def read(cls, config: TrainingConfig, processes: int) -> Batching:
        """The batches of a run on this number of processes."""
        size = config.value("per_device_train_batch_size", Whole(1))
        accumulation = config.value("gradient_accumulation_steps", Whole(1))
        accelerator = config.mapping("accelerator_config")
        if accelerator.get("split_batches"):  # all processes share a batch
            if size % processes:
                remedy = f"write {-(-size // processes) * processes}"
                allowed = f"a multiple of the {processes} processes that share a batch (`split_batches`)"
                raise ArgumentError("per_device_train_batch_size", allowed, size, remedy)
            size //= processes
        name = "accelerator_config.gradient_accumulation_kwargs"
        nested = MAPPING(name, accelerator.get("gradient_accumulation_kwargs") or {}).get("num_steps")
        if nested is not None:
            if accumulation > 1:
                rule = "is set beside `gradient_accumulation_steps`"
                raise ArgumentError(f"{name}.num_steps", received=nested, rule=rule, hint="leave one of them out")
            accumulation = Whole(1)(f"{name}.num_steps", nested)
        return cls(size, processes, accumulation, config.value("dataloader_drop_last", BOOLEAN))

    @property
    def samples_at_once(self) -> int:
        """Samples of one batch on all processes together."""
        return self.batch_size * self.world_size

    @property
    def effective_batch(self) -> int:
        return self.samples_at_once * self.accumulation

    def batches_per_epoch(self, samples: int) -> int:
        """The length of each process's data loader. An incomplete round of batches is filled up, or dropped."""
        return samples // self.samples_at_once if self.drop_last else math.ceil(samples / self.samples_at_once)


@dataclass(frozen=True)
class RunLength:
    """The length of a run. `batches_per_epoch`, on each process, is None if the number of samples is unknown."""

    num_training_steps: int
    accumulation: int
    batches_per_epoch: int | None = None

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps per epoch; the last one may have fewer batches."""
        return None if self.batches_per_epoch is None else math.ceil(self.batches_per_epoch / self.accumulation)

    def batches_after(self, step: int) -> int:
        """The number of batches that a process has trained on after this many optimizer steps."""
        if self.batches_per_epoch is None or self.steps_per_epoch is None:
            return step * self.accumulation
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * self.batches_per_epoch + rest * self.accumulation

    def epoch_after(self, step: int) -> float | None:
        """The fraction of epochs after this many optimizer steps, as the Trainer logs `epoch`."""
        return self.batches_after(step) / self.batches_per_epoch if self.batches_per_epoch else None
