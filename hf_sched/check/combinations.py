"""Arguments that contradict each other, which the Trainer rejects late, ignores, or accepts silently."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.plan.training_config import GENERATING, classes_of

# Arguments that depend on the machine, read files, or are checked elsewhere for the real number of processes.
_NOT_CONSTRUCTED = {
    *("bf16_full_eval", "fp16_full_eval", "tf32", "torch_compile", "use_cpu", "ddp_backend", "parallelism_config"),
    *("deepspeed", "fsdp", "fsdp_config", "hub_token", "output_dir", "lr_scheduler_kwargs", "lr_scheduler_type"),
    *("generation_batch_size", "num_generations", "num_generations_eval"),
    *("per_device_train_batch_size", "per_device_eval_batch_size"),
}


def check_combinations(subject: Subject) -> Iterator[Finding]:
    """Arguments that do not go together."""
    for one, other in (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval"), ("load_in_8bit", "load_in_4bit")):
        if subject.flag(one) and subject.flag(other):
            yield subject.error(other, f"must not be true beside `{one}`: keep one of them")
    steps = subject.number("max_steps")
    if steps is not None and steps > 0 and subject.given.get("num_train_epochs") is not None:
        message = f"is not used, because `max_steps` ({steps:g}) is set: leave one of them out"
        yield subject.warning("num_train_epochs", message)
    if subject.number("dataloader_num_workers") == 0 and subject.value("dataloader_prefetch_factor") is not None:
        remedy = "write dataloader_num_workers: 1 or more, or leave it out"
        yield subject.error("dataloader_prefetch_factor", f"requires worker processes: {remedy}")
    weights, losses = subject.value("loss_weights"), subject.value("loss_type")
    if isinstance(weights, list) and len(weights) != (len(losses) if isinstance(losses, list) else 1):
        yield subject.error("loss_weights", f"must have a weight for each loss of `loss_type`, received {len(weights)}")
    yield from _check_best_model(subject)
    yield from _check_evaluation(subject)


def _check_best_model(subject: Subject) -> Iterator[Finding]:
    saving, evaluating = subject.text("save_strategy"), subject.text("eval_strategy")
    if not subject.flag("load_best_model_at_end"):
        return
    metric = subject.given.get("metric_for_best_model")
    if subject.kind in GENERATING and metric in (None, "loss", "eval_loss"):
        key = "metric_for_best_model" if metric else "load_best_model_at_end"
        remedy = "write metric_for_best_model: eval_reward and greater_is_better: true"
        yield subject.error(key, f"compares `eval_loss`, which says nothing about {subject.kind.upper()}: {remedy}")
    if saving == "best":
        return
    if saving != evaluating and "evaluation_strategy" not in subject.given:
        yield subject.error(
            "load_best_model_at_end",
            f"requires `save_strategy` ({saving}) and `eval_strategy` ({evaluating}) to be the same: "
            "write both, or save_strategy: best",
        )
    save, evaluate = subject.number("save_steps"), subject.number("eval_steps") or subject.number("logging_steps")
    if saving == evaluating == "steps" and save and evaluate:
        parts = save / evaluate
        if (save < 1) != (evaluate < 1) or abs(parts - round(parts)) > 1e-6:
            rule = f"must be a multiple of `eval_steps` ({evaluate:g}) for `load_best_model_at_end`"
            yield subject.error("save_steps", f"{rule}, received {save:g}")


def _check_evaluation(subject: Subject) -> Iterator[Finding]:
    evaluating, schedule = subject.text("eval_strategy"), subject.text("lr_scheduler_type")
    if schedule in ("reduce_lr_on_plateau", "greedy") and evaluating == "no":
        message = f"{schedule} depends on the evaluations: write eval_strategy: steps or epoch"
        yield subject.error("lr_scheduler_type", message)
    if "evaluation_strategy" in subject.given or subject.given.get("eval_steps") is None:
        return
    if evaluating in ("no", "epoch"):
        remedy = "write eval_strategy: steps, or leave it out"
        yield subject.warning("eval_steps", f"is not used, because `eval_strategy` is {evaluating}: {remedy}")


def check_construction(subject: Subject, wrong: Collection[str]) -> Iterator[Finding]:
    """Rules and deprecations that only the trainer's dataclass knows, by constructing it.

    Args:
        subject: The configuration. It must have no errors so far.
        wrong: Keys with findings, which are left out.
    """
    if "WORLD_SIZE" in os.environ:  # as one process of several, the dataclass would wait for the others
        return
    cls: Any = classes_of(subject.kind)[0]
    own = {field for field in cls.__dataclass_fields__ if field not in _NOT_CONSTRUCTED}
    given = {key: value for key, value in subject.given.items() if key in own and key not in wrong}
    error, _ = _construct(cls, given, subject.kind)
    alone = {key: _construct(cls, {key: given[key]}, subject.kind) for key in given}
    if error is not None:
        key = next((key for key in given if alone[key][0]), "")  # no key if only several together are rejected
        yield subject.error(key, f"is rejected by {cls.__name__}: {_one_line(error)}")
        return
    _, of_defaults = _construct(cls, {}, subject.kind)
    for key in given:
        yield from (subject.warning(key, text) for text in alone[key][1] if text not in of_defaults)


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
