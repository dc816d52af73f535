"""Arguments that contradict each other, which the Trainer rejects late, ignores, or accepts silently."""

from __future__ import annotations

import os
import warnings
from typing import Any

from hf_sched.check.context import Subject
from hf_sched.plan.training_config import GENERATING, classes_of

# Arguments that depend on the machine, read files, or are checked elsewhere for the real number of processes.
_NOT_CONSTRUCTED = {
    *("bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "use_cpu", "ddp_backend", "parallelism_config"),
    *("deepspeed", "fsdp", "fsdp_config", "hub_token", "output_dir", "lr_scheduler_kwargs", "lr_scheduler_type"),
    *("generation_batch_size", "num_generations", "num_generations_eval"),
    *("per_device_train_batch_size", "per_device_eval_batch_size"),
}


def check_combinations(subject: Subject) -> None:
    """Find contradictions about which the dataclass of the trainer says nothing, or nothing clear."""
    for one, other in (("bf16", "fp16"), ("load_in_8bit", "load_in_4bit")):
        if subject.flag(one) and subject.flag(other):
            subject.error(other, f"must not be true beside `{one}`: keep one of them")
    steps = subject.number("max_steps")
    if steps is not None and steps > 0 and subject.given.get("num_train_epochs") is not None:
        subject.warning("num_train_epochs", f"is not used, because `max_steps` is {steps:g}: leave one of them out")
    evaluating, schedule = subject.text("eval_strategy"), subject.text("lr_scheduler_type")
    if schedule in ("reduce_lr_on_plateau", "greedy") and evaluating == "no":
        subject.error("lr_scheduler_type", f"{schedule} depends on evaluations: write eval_strategy: steps or epoch")
    is_old = "evaluation_strategy" in subject.given  # `keys.py` reports the old name
    if evaluating in ("no", "epoch") and subject.given.get("eval_steps") is not None and not is_old:
        remedy = "write eval_strategy: steps, or leave it out"
        subject.warning("eval_steps", f"is not used, because `eval_strategy` is {evaluating}: {remedy}")
    metric = subject.given.get("metric_for_best_model")
    selects_by_loss = subject.flag("load_best_model_at_end") and metric in (None, "loss", "eval_loss")
    if subject.kind in GENERATING and selects_by_loss:
        key = "metric_for_best_model" if metric else "load_best_model_at_end"
        remedy = "write metric_for_best_model: eval_reward and greater_is_better: true"
        subject.error(key, f"compares `eval_loss`, which says nothing about {subject.kind.upper()}: {remedy}")


def check_construction(subject: Subject) -> None:
    """Construct the trainer's dataclass, for rules and deprecations that only it knows, unless there are errors."""
    if subject.wrong or "WORLD_SIZE" in os.environ:  # as one process of several, it would wait for the others
        return
    cls: Any = classes_of(subject.kind)[0]
    left_out = {*_NOT_CONSTRUCTED, *(finding.key for finding in subject.findings)}
    own = cls.__dataclass_fields__.keys() - left_out
    given = {key: value for key, value in subject.given.items() if key in own}
    error, _ = _construct(cls, given, subject.kind)
    if error is None:
        _, of_defaults = _construct(cls, {}, subject.kind)
        for key, value in given.items():
            for text in _construct(cls, {key: value}, subject.kind)[1]:
                if text not in of_defaults:
                    subject.warning(key, text)
        return
    without = {key: {other: value for other, value in given.items() if other != key} for key in given}
    key = next((key for key in given if _construct(cls, without[key], subject.kind)[0] is None), "")
    subject.error(key, f"is rejected by {cls.__name__}: {_one_line(error)}")


def _construct(cls: Any, given: dict[str, Any], kind: str) -> tuple[Exception | None, list[str]]:
    """The error of the dataclass for some arguments, and its warnings about deprecated ones."""
    half = {"bf16": False, "fp16": False} if {"bf16", "fp16"} <= cls.__dataclass_fields__.keys() else {}
    # A batch that holds one group of completions.
    batches = ("num_generations", "per_device_train_batch_size", "per_device_eval_batch_size")
    sizes = dict.fromkeys(batches, 2) if kind in GENERATING else {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            cls(**{**given, **half, **sizes, "output_dir": "out", "use_cpu": True})
        except (TypeError, ValueError, NotImplementedError) as error:
            return error, []
    return None, [_one_line(one.message) for one in caught if issubclass(one.category, FutureWarning)]


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
