"""Training on what the model generates itself (GRPO, RLOO): how prompts become batches, by TRL's rules."""

from __future__ import annotations

from dataclasses import dataclass

from hf_sched.plan.run_length import Batching, RunLength
from hf_sched.plan.training_config import RunConfig
from hf_sched.schedules.validation import Whole

GENERATING = ("grpo", "rloo")


@dataclass(frozen=True)
class Generations:
    """How completions are made and trained on.

    A generation makes `generation_batch_size` completions, `num_generations` for each prompt. It is cut into
    `steps_per_generation` batches on each process, which are gone through `num_iterations` times.
    """

    num_generations: int
    steps_per_generation: int
    num_iterations: int
    generation_batch_size: int
    accumulation: int

    @classmethod
    def read(cls, config: RunConfig, batching: Batching) -> Generations:
        """Those of a configuration.

        Raises:
            ValueError: The numbers do not divide as TRL needs them to, or what is given excludes each other.
        """
        num_generations = config.read_value("num_generations", Whole(2))
        at_once = batching.batch_size * batching.world_size
        of_what = f"per_device_train_batch_size {batching.batch_size} x {batching.world_size} process" + (
            "es" if batching.world_size > 1 else ""
        )
        size = config.get("generation_batch_size", Whole(1))
        steps = config.get("steps_per_generation", Whole(1))
        if size is not None and steps is not None:
            raise ValueError(
                "give either `generation_batch_size` or `steps_per_generation`, received "
                f"{size} and {steps}: leave one out"
            )
        if size is not None and size % at_once:
            raise ValueError(
                f"`generation_batch_size` must be a multiple of {at_once} ({of_what}), received {size}: write "
                f"{max(round(size / at_once), 1) * at_once}"
            )
        steps = steps or (size // at_once if size else batching.accumulation)
        size = at_once * steps
        if size % num_generations:
            raise ValueError(
                f"`num_generations` must divide the {size} completions of a generation ({of_what} x "
                f"steps_per_generation {steps}), received {num_generations}: write "
                f"{_nearest_divisor(size, num_generations)}, or another batch size"
            )
        return cls(num_generations, steps, config.read_value("num_iterations", Whole(1)), size, batching.accumulation)

    @property
    def prompts_per_generation(self) -> int:
        """Prompts that a generation completes."""
        return self.generation_batch_size // self.num_generations

    @property
    def batches_per_generation(self) -> int:
        """Batches that each process trains on until completions are made again."""
        return self.steps_per_generation * self.num_iterations

    @property
    def optimizer_steps_per_generation(self) -> float:
        """Optimizer steps until completions are made again."""
        return self.batches_per_generation / self.accumulation

    @property
    def completions_per_step(self) -> int:
        """The effective batch: completions that an optimizer step learns from."""
        return self.generation_batch_size // self.steps_per_generation * self.accumulation

    @property
    def prompts_per_step(self) -> float:
        """How many prompts have so many completions; those that are trained on again count again."""
        return self.completions_per_step / self.num_generations

    def batches_per_epoch(self, prompts: int) -> int:
        """What `len` of a process's data loader is; prompts that do not fill a generation are left out."""
        return prompts // self.prompts_per_generation * self.batches_per_generation

    def generations_of(self, length: RunLength) -> int:
        """How often a run generates."""
        return -(-length.batches_after(length.num_training_steps) // self.batches_per_generation)

    def check_evaluation(self, config: RunConfig, world_size: int) -> None:
        """Refuse evaluation batches that would cut the completions of a prompt apart."""
        num_generations = config.get("num_generations_eval", Whole(1)) or self.num_generations
        batch = config.read_value("per_device_eval_batch_size", Whole(1))
        if batch * world_size % num_generations:
            raise ValueError(
                f"`per_device_eval_batch_size` x processes must be a multiple of the {num_generations} completions of "
                f"a prompt in evaluation, received {batch} x {world_size}: write {num_generations}, or set "
                "`num_generations_eval`"
            )


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((n for n in range(2, number + 1) if number % n == 0), key=lambda n: abs(n - wanted), default=number)
