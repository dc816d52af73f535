"""Arguments that contradict each other, which the Trainer rejects late, ignores, or accepts silently."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.integrations.builtin_schedules import FOLLOWING_A_METRIC
from hf_sched.plan.grpo_batches import Generations
from hf_sched.plan.run_length import Batching
from hf_sched.plan.training_config import GENERATING, classes_of
from hf_sched.schedules.validation import ArgumentError

# Arguments that depend on the machine, read files, or are checked elsewhere for the real number of processes.
_NOT_CONSTRUCTED = {
    *("bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "use_cpu", "ddp_backend", "parallelism_config"),
    *("deepspeed", "fsdp", "fsdp_config", "hub_token", "output_dir", "lr_scheduler_kwargs", "lr_scheduler_type"),
    *("bf16", "fp16", "generation_batch_size", "num_generations", "num_generations_eval"),
    *("per_device_train_batch_size", "per_device_eval_batch_size"),
}
# Sizes of the batches of GRPO and RLOO. If one of them is wrong, the others cannot be judged.
_SIZES = (
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "accelerator_config"),
    *("num_generations", "num_generations_eval", "num_iterations", "steps_per_generation", "generation_batch_size"),
)


def check_combinations(subject: Subject) -> Iterator[Finding]:
    """Find contradictions about which the dataclass of the trainer says nothing, or nothing clear."""
    get, given = subject.get, subject.config.given
    for one, other in (("bf16", "fp16"), ("load_in_8bit", "load_in_4bit")):
        if get(one) and get(other):
            yield subject.error(other, f"must not be true beside `{one}`: keep one of them")
    if (get("max_steps") or 0) > 0 and given.get("num_train_epochs") is not None:
        rule = f"is not used, because `max_steps` is {get('max_steps')}"
        yield subject.warning("num_train_epochs", f"{rule}: leave one of them out")
    evaluating = get("eval_strategy")
    is_old = "evaluation_strategy" in given  # `keys.py` reports the old name
    if evaluating in ("no", "epoch") and given.get("eval_steps") is not None and not is_old:
        remedy = "write eval_strategy: steps, or leave it out"
        yield subject.warning("eval_steps", f"is not used, because `eval_strategy` is {evaluating}: {remedy}")
    yield from _check_metric(subject)
    try:
        Batching.read(subject.usable, subject.num_processes or 1)
    except ArgumentError as error:
        yield subject.rejected(error)
    nested = (get("accelerator_config") or {}).get("gradient_accumulation_kwargs")
    if isinstance(nested, Mapping) and isinstance(number := nested.get("num_steps"), str):
        name = "accelerator_config.gradient_accumulation_kwargs.num_steps"
        yield subject.error(name, f"is text, which no parser converts: write {number} without quotes")


def _check_metric(subject: Subject) -> Iterator[Finding]:
    """Find metrics that choose checkpoints or learning rates, but measure nothing or are read the wrong way."""
    get, users = subject.get, []
    if get("load_best_model_at_end"):
        users.append("load_best_model_at_end")
    if get("save_strategy") == "best":
        users.append("save_strategy")
    if get("lr_scheduler_type") in FOLLOWING_A_METRIC:
        users.append("lr_scheduler_type")
    if not users:
        return
    if users == ["save_strategy"] and get("metric_for_best_model") is None:
        yield subject.error("save_strategy", "is best, which requires metric_for_best_model (eval_loss)")
    metric, greater = str(get("metric_for_best_model") or "loss"), get("greater_is_better")
    if subject.config.kind in GENERATING and metric in ("loss", "eval_loss"):
        key = "metric_for_best_model" if get("metric_for_best_model") else users[0]
        remedy = "write metric_for_best_model: eval_reward and greater_is_better: true"
        yield subject.error(key, f"compares `eval_loss`, which says nothing about completions: {remedy}")
    wrong = True if metric.endswith("loss") else False if "reward" in metric else None
    if greater is not None and greater is wrong:
        which = "smaller" if wrong else "greater"
        yield subject.error("greater_is_better", f"is wrong for {metric}, of which {which} values are better")


def check_generations(subject: Subject) -> Iterator[Finding]:
    """Find numbers that do not divide as TRL requires on the number of processes, which is 1 if it is unknown."""
    if subject.config.kind not in GENERATING or subject.world_size is None:
        return
    if subject.get("auto_find_batch_size"):
        remedy = "leave it out, and lower `per_device_train_batch_size`"
        yield subject.error("auto_find_batch_size", f"would split groups of completions: {remedy}")
    rejected = _generations_error(subject, subject.num_processes or 1)
    if rejected is None or not subject.wrong.isdisjoint(_SIZES):
        return
    candidates = range(2, 65) if subject.num_processes is None else ()
    fitting = [str(number) for number in candidates if _generations_error(subject, number) is None]
    more = f" (1 process is assumed; it fits {', '.join(fitting[:2])}, ...: `--num-processes`)" if fitting else ""
    yield subject.error(rejected.name, rejected.detail + more)


def _generations_error(subject: Subject, processes: int) -> ArgumentError | None:
    try:
        generations = Generations.read(subject.usable, Batching.read(subject.usable, processes))
        if subject.get("eval_strategy") != "no":
            generations.check_evaluation(subject.usable, processes)
    except ArgumentError as error:
        return error
    return None


def check_packages(subject: Subject) -> Iterator[Finding]:
    """Find integrations that are not installed: the Trainer raises once the model is loaded."""
    requested = subject.get("report_to") or ()
    names = {*([requested] if isinstance(requested, str) else requested)} - {"none", "all"}
    if not names:
        return
    from transformers.integrations import get_available_reporting_integrations

    for name in sorted(names.difference(get_available_reporting_integrations())):
        yield subject.warning("report_to", f"requires the package of {name}, which is not installed here")


def check_construction(subject: Subject) -> Iterator[Finding]:
    """Construct the trainer's dataclass, for rules that only it knows, unless there are errors."""
    if subject.wrong or "WORLD_SIZE" in os.environ:  # as one process of several, it would wait for the others
        return
    cls: Any = classes_of(subject.config.kind)[0]
    left_out = {*_NOT_CONSTRUCTED, *(finding.key for finding in subject.findings)}
    own = cls.__dataclass_fields__.keys() - left_out
    given = {key: value for key, value in subject.typed.items() if key in own}
    if (error := _construction_error(cls, given, subject.config.kind)) is not None:
        without = {key: {other: value for other, value in given.items() if other != key} for key in given}
        key = next((key for key in given if _construction_error(cls, without[key], subject.config.kind) is None), "")
        yield subject.error(key, f"is rejected by {cls.__name__}: {' '.join(str(error).split())}")


def _construction_error(cls: Any, given: dict[str, Any], kind: str) -> Exception | None:
    fixed: dict[str, Any] = {"output_dir": "out", "use_cpu": True, "bf16": False, "fp16": False}
    if kind in GENERATING:  # a batch that holds one group of completions
        batches = ("num_generations", "per_device_train_batch_size", "per_device_eval_batch_size")
        fixed |= dict.fromkeys(batches, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cls(**given, **fixed)
        except Exception as error:  # another library's code with a user's values
            return error
    return None
