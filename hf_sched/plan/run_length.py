"""How long a run is: the batches and optimizer steps of an epoch and of the whole, counted as the Trainer counts."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Batching:
    """How a Trainer and its data loaders cut the samples of an epoch into batches, and these into optimizer steps."""

    batch_size: int
    """Samples that a data loader takes at once: of one process, or of all of them with `split_batches`."""
    world_size: int = 1
    accumulation: int = 1
    """Batches of an optimizer step, on each process."""
    drop_last: bool = False
    split_batches: bool = False
    rebalanced: bool = False
    """Whether an optimizer step is cut into batches of any size (`train_sampling_strategy: batch_rebalance`)."""

    @property
    def effective_batch(self) -> int:
        """Samples of an optimizer step, on all processes together."""
        return self.batch_size * self.accumulation * (1 if self.split_batches else self.world_size)

    def batches_per_epoch(self, samples: int) -> int:
        """What `len` of a process's data loader is."""
        if self.rebalanced:
            return self._divide(samples, self.effective_batch) * self.accumulation
        batches = self._divide(samples, self.batch_size)
        # Batches are dealt out to the processes; a round that does not serve all of them is filled up, or dropped.
        return batches if self.split_batches else self._divide(batches, self.world_size)

    def _divide(self, number: int, by: int) -> int:
        return number // by if self.drop_last else math.ceil(number / by)


@dataclass(frozen=True)
class RunLength:
    """The length of a run; what an epoch has is None where nobody knows how many samples there are."""

    num_training_steps: int
    accumulation: int
    batches_per_epoch: int | None = None
    """On each process."""

    @classmethod
    def of(cls, batches_per_epoch: int | None, accumulation: int, max_steps: int, num_train_epochs: float) -> RunLength:
        """The length that a Trainer gives to a run: `max_steps` wins over the epochs, unless it is -1."""
        steps = max_steps
        if max_steps < 0:
            assert batches_per_epoch is not None
            steps = math.ceil(num_train_epochs * math.ceil(batches_per_epoch / accumulation))
        return cls(steps, accumulation, batches_per_epoch)

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of an epoch; the last one may have fewer batches."""
        if self.batches_per_epoch is None:
            return None
        return math.ceil(self.batches_per_epoch / self.accumulation)

    def batches_after(self, step: int) -> int:
        """How many batches a process has trained on after this many optimizer steps."""
        if self.batches_per_epoch is None or self.steps_per_epoch is None:
            return step * self.accumulation
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * self.batches_per_epoch + rest * self.accumulation

    def epoch_after(self, step: int) -> float | None:
        """How far the data have been gone through after this many optimizer steps, as the Trainer logs `epoch`."""
        if self.batches_per_epoch is None or self.steps_per_epoch is None:
            return None
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs + rest * self.accumulation / self.batches_per_epoch
