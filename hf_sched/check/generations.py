"""GRPO and RLOO: a generation batch must hold all completions of its prompts."""

from __future__ import annotations

from collections.abc import Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.plan.grpo_batches import Generations
from hf_sched.plan.run_length import Batching
from hf_sched.plan.training_config import GENERATING
from hf_sched.schedules.validation import ArgumentError

# If one of them is wrong, the others cannot be judged.
_SIZES = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "accelerator_config"),
    *("num_generations", "num_generations_eval", "num_iterations", "steps_per_generation", "generation_batch_size"),
)


def check_generations(subject: Subject) -> Iterator[Finding]:
    """Find numbers that do not divide as TRL requires on the number of processes, which is 1 if it is unknown."""
    if subject.config.kind not in GENERATING or subject.world_size is None:
        return
    if subject.get("auto_find_batch_size"):
        remedy = "leave it out, and lower `per_device_train_batch_size`"
        yield subject.error("auto_find_batch_size", f"would split groups of completions: {remedy}")
    rejected = _reject(subject, subject.num_processes or 1)
    if rejected is None or not subject.wrong.isdisjoint(_SIZES):
        return
    candidates = range(2, 65) if subject.num_processes is None else ()
    fitting = [str(number) for number in candidates if _reject(subject, number) is None]
    more = f" (1 process is assumed; it fits {', '.join(fitting[:2])}, ...: `--num-processes`)" if fitting else ""
    yield subject.error(rejected.name, rejected.detail + more)


def _reject(subject: Subject, processes: int) -> ArgumentError | None:
    try:
        generations = Generations.read(subject.usable, Batching.read(subject.usable, processes))
        if subject.get("eval_strategy") != "no":
            generations.check_evaluation(subject.usable, processes)
    except ArgumentError as error:
        return error
    return None
