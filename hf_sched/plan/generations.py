"""Training on the model's own completions (GRPO, RLOO): how prompts become batches, by the rules of TRL."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hf_sched.plan.run_length import Batching, RunLength
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError, Whole


@dataclass(frozen=True)
class Generations:
    """How completions are generated and used.

    A generation makes `generation_batch_size` completions, `num_generations` for each prompt. On each process it is
    split into `steps_per_generation` batches, which are used `num_iterations` times.
    """

    num_generations: int
    """Completions per prompt."""
    steps_per_generation: int
    num_iterations: int
    generation_batch_size: int
    """Completions of one generation, on all processes together."""
    prompts_per_generation: int
    optimizer_steps_per_generation: float
    prompts_per_step: float
    """`completions_per_step / num_generations`. Reused prompts (`num_iterations`) count every time."""
    completions_per_step: int
    """The effective batch size."""
    generations: int = 0
    """Generations of the whole run. This and the following numbers come from `in_run`."""
    prompts: int = 0
    """Prompts of the whole run; those of later epochs count again."""
    completions: int = 0
    """Completions of the whole run."""
    prompts_left_out: int | None = None
    """Prompts that each epoch drops because they do not fill a generation; None if the number of prompts is unknown."""

    @classmethod
    def read(cls, config: TrainingConfig, batching: Batching) -> Generations:
        """The generations of a configuration.

        Raises:
            ArgumentError: The numbers do not divide as TRL requires, or two arguments exclude each other.
        """
        num_generations = config.read_value("num_generations", Whole(2))
        iterations = config.read_value("num_iterations", Whole(1))
        at_once = batching.samples_at_once
        product = f"per_device_train_batch_size {batching.batch_size} x {_processes(batching.world_size)}"
        size = config.get("generation_batch_size", Whole(1))
        steps = config.get("steps_per_generation", Whole(1))
        if size is not None and steps is not None:
            rule = "has the same meaning as `generation_batch_size`"
            raise ArgumentError("steps_per_generation", received=steps, rule=rule, hint="leave one of them out")
        if size is not None and size % at_once:
            remedy = f"write {max(round(size / at_once), 1) * at_once}"
            raise ArgumentError("generation_batch_size", f"a multiple of {at_once} ({product})", size, remedy)
        if steps is None:
            steps = size // at_once if size else config.read_value("gradient_accumulation_steps", Whole(1))
        size = at_once * steps
        if size % num_generations:
            rule = f"must divide the {size} completions of a generation ({product} x steps_per_generation {steps})"
            remedy = f"write {_nearest_divisor(size, num_generations)}, or another batch size"
            raise ArgumentError("num_generations", received=num_generations, rule=rule, hint=remedy)
        completions = at_once * batching.accumulation
        return cls(
            num_generations,
            steps,
            iterations,
            generation_batch_size=size,
            prompts_per_generation=size // num_generations,
            optimizer_steps_per_generation=steps * iterations / batching.accumulation,
            prompts_per_step=completions / num_generations,
            completions_per_step=completions,
        )

    @property
    def batches_per_generation(self) -> int:
        """Batches that each process trains on before the next generation."""
        return self.steps_per_generation * self.num_iterations

    def batches_per_epoch(self, prompts: int) -> int:
        """The length of each process's data loader, which drops prompts that do not fill a generation."""
        return prompts // self.prompts_per_generation * self.batches_per_generation

    def in_run(self, length: RunLength, prompts: int | None) -> Generations:
        """The same with the totals of a run; `prompts` is the size of the dataset."""
        number = -(-length.batches_after(length.num_training_steps) // self.batches_per_generation)
        return dataclasses.replace(
            self,
            generations=number,
            prompts=number * self.prompts_per_generation,
            completions=number * self.generation_batch_size,
            prompts_left_out=None if prompts is None else prompts % self.prompts_per_generation,
        )

    def check_evaluation(self, config: TrainingConfig, world_size: int) -> None:
        """Check that an evaluation batch holds all completions of each prompt.

        Raises:
            ArgumentError: It does not.
        """
        group = config.get("num_generations_eval", Whole(1)) or self.num_generations
        batch = config.read_value("per_device_eval_batch_size", Whole(1))
        if batch * world_size % group:
            rule = f"x {_processes(world_size)} must be a multiple of the {group} completions per prompt"
            remedy = f"write {-(-batch // group) * group}, or set `num_generations_eval`"
            raise ArgumentError("per_device_eval_batch_size", received=batch, rule=rule, hint=remedy)


def _processes(number: int) -> str:
    return f"{number} process{'' if number == 1 else 'es'}"


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((n for n in range(2, number + 1) if number % n == 0), key=lambda n: abs(n - wanted), default=number)
