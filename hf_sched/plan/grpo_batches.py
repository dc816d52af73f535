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

    A generation makes `generation_batch_size` completions on all processes together, `num_generations` for each
    prompt. On each process it is split into `steps_per_generation` batches, which are used `num_iterations` times.
    """

    num_generations: int
    steps_per_generation: int
    num_iterations: int
    generation_batch_size: int
    prompts_per_generation: int
    optimizer_steps_per_generation: float
    # Totals of the run, from `in_run`.
    generations: int = 0
    prompts: int = 0
    """Those of later epochs count again."""
    completions: int = 0

    @classmethod
    def read(cls, config: TrainingConfig, batching: Batching) -> Generations:
        """The generations of a configuration."""
        num_generations = config.value("num_generations", Whole(2))
        iterations = config.value("num_iterations", Whole(1))
        at_once = batching.samples_at_once
        product = f"per_device_train_batch_size {batching.batch_size} x processes {batching.world_size}"
        size, steps = (config.get(name, Whole(1)) for name in ("generation_batch_size", "steps_per_generation"))
        if size is not None and steps is not None:
            rule = "has the same meaning as `generation_batch_size`"
            raise ArgumentError("steps_per_generation", received=steps, rule=rule, hint="leave one of them out")
        if size is not None and size % at_once:
            allowed, remedy = f"a multiple of {at_once} ({product})", f"write {-(-size // at_once) * at_once}"
            raise ArgumentError("generation_batch_size", allowed, size, remedy)
        if steps is None:
            steps = size // at_once if size else config.value("gradient_accumulation_steps", Whole(1))
        size = at_once * steps
        if size % num_generations:
            rule = f"must divide the {size} completions of a generation ({product} x steps_per_generation {steps})"
            divisors = [number for number in range(2, size + 1) if size % number == 0]
            nearest = min(divisors, key=lambda number: abs(number - num_generations), default=size)
            remedy = f"write {nearest}, or another batch size"
            raise ArgumentError("num_generations", received=num_generations, rule=rule, hint=remedy)
        return cls(
            num_generations,
            steps,
            iterations,
            generation_batch_size=size,
            prompts_per_generation=size // num_generations,
            optimizer_steps_per_generation=steps * iterations / batching.accumulation,
        )

    @property
    def batches_per_generation(self) -> int:
        return self.steps_per_generation * self.num_iterations

    def batches_per_epoch(self, prompts: int) -> int:
        """The length of each process's data loader, which drops prompts that do not fill a generation."""
        return prompts // self.prompts_per_generation * self.batches_per_generation

    def in_run(self, length: RunLength) -> Generations:
        """The same with the totals of a run."""
        number = -(-length.batches_after(length.num_training_steps) // self.batches_per_generation)
        return dataclasses.replace(
            self,
            generations=number,
            prompts=number * self.prompts_per_generation,
            completions=number * self.generation_batch_size,
        )

    def check_evaluation(self, config: TrainingConfig, world_size: int) -> None:
        """Check that an evaluation batch holds all completions of each prompt."""
        group = config.get("num_generations_eval", Whole(1)) or self.num_generations
        batch = config.value("per_device_eval_batch_size", Whole(1))
        if batch * world_size % group:
            rule = f"x processes {world_size} must be a multiple of the {group} completions per prompt"
            remedy = f"write {-(-batch // group) * group}, or set `num_generations_eval`"
            raise ArgumentError("per_device_eval_batch_size", received=batch, rule=rule, hint=remedy)
