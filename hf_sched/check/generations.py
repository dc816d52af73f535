"""GRPO and RLOO: a generation batch must hold all completions of its prompts."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.plan.generations import Generations
from hf_sched.plan.run_length import Batching
from hf_sched.plan.training_config import GENERATING
from hf_sched.schedules.validation import ArgumentError

# Larger numbers of processes are not tried.
_MOST_PROCESSES = 64


def check_generations(subject: Subject, wrong: Collection[str]) -> Iterator[Finding]:
    """Numbers that do not divide as TRL requires; `wrong` are the keys that already have errors."""
    if subject.kind not in GENERATING:
        return
    if subject.value("auto_find_batch_size") is True:
        remedy = "leave it out, and lower `per_device_train_batch_size`"
        yield subject.error("auto_find_batch_size", f"would split groups of completions: {remedy}")
    sizes = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
    if not {*sizes, "num_generations", "num_iterations", "steps_per_generation"}.isdisjoint(wrong):
        return
    rejected = _reject(subject, subject.num_processes or 1)
    if rejected is None:
        return
    candidates = range(2, _MOST_PROCESSES + 1) if subject.num_processes is None else ()
    fitting = [number for number in candidates if _reject(subject, number) is None]
    if not fitting:
        yield subject.rejected(rejected)
        return
    first = ", ".join(map(str, fitting[:2]))
    subject.not_judged.append(
        f"whether `{rejected.name}` fits the number of processes, as it does on {first}, ...: give `--num-processes`"
    )


def _reject(subject: Subject, processes: int) -> ArgumentError | None:
    try:
        generations = Generations.read(subject.config, Batching.read(subject.config, processes))
        if subject.text("eval_strategy") in ("steps", "epoch"):
            generations.check_evaluation(subject.config, processes)
    except ArgumentError as error:
        return error
    return None
