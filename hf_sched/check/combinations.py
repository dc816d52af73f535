"""Arguments that contradict each other, which the Trainer rejects late, ignores, or accepts silently."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.plan.training_config import GENERATING, classes_of

# Arguments that depend on the machine, read files, or are checked elsewhere for the real number of processes.
_NOT_CONSTRUCTED = {
    *("bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "use_cpu", "ddp_backend", "parallelism_config"),
    *("deepspeed", "fsdp", "fsdp_config", "hub_token", "output_dir", "lr_scheduler_kwargs", "lr_scheduler_type"),
    *("bf16", "fp16", "generation_batch_size", "num_generations", "num_generations_eval"),
    *("per_device_train_batch_size", "per_device_eval_batch_size"),
}


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
    metric = get("metric_for_best_model")
    if subject.config.kind in GENERATING and get("load_best_model_at_end") and metric in (None, "loss", "eval_loss"):
        key = "metric_for_best_model" if metric else "load_best_model_at_end"
        remedy = "write metric_for_best_model: eval_reward and greater_is_better: true"
        yield subject.error(key, f"compares `eval_loss`, which says nothing about completions: {remedy}")


def check_construction(subject: Subject) -> Iterator[Finding]:
    """Construct the trainer's dataclass, for rules and deprecations that only it knows, unless there are errors."""
    if subject.wrong or "WORLD_SIZE" in os.environ:  # as one process of several, it would wait for the others
        return
    cls: Any = classes_of(subject.config.kind)[0]
    left_out = {*_NOT_CONSTRUCTED, *(finding.key for finding in subject.findings)}
    own = cls.__dataclass_fields__.keys() - left_out
    given = {key: value for key, value in subject.typed.items() if key in own}
    error, found = _construct(cls, given, subject.config.kind)
    if error is not None:
        without = {key: {other: value for other, value in given.items() if other != key} for key in given}
        key = next((key for key in given if _construct(cls, without[key], subject.config.kind)[0] is None), "")
        yield subject.error(key, f"is rejected by {cls.__name__}: {_one_line(error)}")
    of_defaults = _construct(cls, {}, subject.config.kind)[1] if found else set()
    for key, value in given.items() if found - of_defaults else ():
        for text in _construct(cls, {key: value}, subject.config.kind)[1] - of_defaults:
            yield subject.warning(key, text)


def _construct(cls: Any, given: dict[str, Any], kind: str) -> tuple[Exception | None, set[str]]:
    """The error of the dataclass for some arguments, and its warnings about deprecated ones."""
    fixed: dict[str, Any] = {"output_dir": "out", "use_cpu": True, "bf16": False, "fp16": False}
    if kind in GENERATING:  # a batch that holds one group of completions
        batches = ("num_generations", "per_device_train_batch_size", "per_device_eval_batch_size")
        fixed |= dict.fromkeys(batches, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            cls(**given, **fixed)
        except Exception as error:  # another library's code with a user's values
            return error, set()
    return None, {_one_line(one.message) for one in caught if issubclass(one.category, FutureWarning)}


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
