"""GRPO and RLOO: a generation batch must hold all completions of its prompts."""

from __future__ import annotations

from hf_sched.check.context import Subject
from hf_sched.plan.grpo_batches import Generations
from hf_sched.plan.run_length import Batching
from hf_sched.plan.training_config import GENERATING
from hf_sched.schedules.validation import ArgumentError

_SIZES = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("num_generations", "num_iterations", "steps_per_generation"),
)


def check_generations(subject: Subject) -> None:
    """Find numbers that do not divide as TRL requires, on the number of processes or on every plausible one."""
    if subject.kind not in GENERATING:
        return
    if subject.flag("auto_find_batch_size"):
        remedy = "leave it out, and lower `per_device_train_batch_size`"
        subject.error("auto_find_batch_size", f"would split groups of completions: {remedy}")
    rejected = _reject(subject, subject.num_processes or 1)
    if rejected is None or not subject.wrong.isdisjoint(_SIZES):
        return
    candidates = range(2, 65) if subject.num_processes is None else ()
    fitting = [str(number) for number in candidates if _reject(subject, number) is None]
    if not fitting:
        subject.rejected(rejected)
        return
    numbers = f"the number of processes, as it does on {', '.join(fitting[:2])}, ..."
    subject.not_judged.append(f"whether `{rejected.name}` fits {numbers}: give `--num-processes`")


def _reject(subject: Subject, processes: int) -> ArgumentError | None:
    try:
        generations = Generations.read(subject.config, Batching.read(subject.config, processes))
        if subject.text("eval_strategy") in ("steps", "epoch"):
            generations.check_evaluation(subject.config, processes)
    except ArgumentError as error:
        return error
    return None
