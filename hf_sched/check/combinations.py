"""Arguments that contradict each other, which a Trainer refuses late or not at all."""

from __future__ import annotations

from collections.abc import Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject


def check_combinations(subject: Subject) -> Iterator[Finding]:
    """What does not go together."""
    yield from _check_precision(subject)
    yield from _check_horizon(subject)
    yield from _check_best_model(subject)
    yield from _check_evaluation(subject)
    workers = subject.number("dataloader_num_workers")
    if workers == 0 and subject.value("dataloader_prefetch_factor") is not None:
        yield subject.error(
            "dataloader_prefetch_factor",
            "needs processes to load with: write dataloader_num_workers: 1 or more, or leave it out",
        )
    weights, losses = subject.value("loss_weights"), subject.value("loss_type")
    if isinstance(weights, list) and len(weights) != (len(losses) if isinstance(losses, list) else 1):
        yield subject.error("loss_weights", f"must have a weight for each loss of `loss_type`, received {len(weights)}")


def _check_precision(subject: Subject) -> Iterator[Finding]:
    for one, other in (("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval"), ("load_in_8bit", "load_in_4bit")):
        if subject.flag(one) and subject.flag(other):
            yield subject.error(other, f"must not be true beside `{one}`: keep one of them")


def _check_horizon(subject: Subject) -> Iterator[Finding]:
    steps = subject.number("max_steps")
    if steps is not None and steps > 0 and subject.given.get("num_train_epochs") is not None:
        yield subject.warning(
            "num_train_epochs", f"is not used, since `max_steps` ({steps:g}) is given: leave one of them out"
        )


def _check_best_model(subject: Subject) -> Iterator[Finding]:
    saving, evaluating = subject.text("save_strategy"), subject.text("eval_strategy")
    if not subject.flag("load_best_model_at_end") or saving == "best":
        return
    if saving != evaluating and "evaluation_strategy" not in subject.given:
        yield subject.error(
            "load_best_model_at_end",
            f"needs `save_strategy` ({saving}) and `eval_strategy` ({evaluating}) to be the same: "
            "write both, or save_strategy: best",
        )
    save, evaluate = subject.number("save_steps"), subject.number("eval_steps") or subject.number("logging_steps")
    if saving == evaluating == "steps" and save and evaluate:
        mixed = (save < 1) != (evaluate < 1)
        parts = save / evaluate
        if mixed or abs(parts - round(parts)) > 1e-6:
            yield subject.error(
                "save_steps",
                f"must be a multiple of `eval_steps` ({evaluate:g}) for `load_best_model_at_end`, received {save:g}",
            )


def _check_evaluation(subject: Subject) -> Iterator[Finding]:
    evaluating = subject.text("eval_strategy")
    if subject.text("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy") and evaluating == "no":
        yield subject.error(
            "lr_scheduler_type",
            f"{subject.text('lr_scheduler_type')} follows the evaluations: write eval_strategy: steps or epoch",
        )
    if "evaluation_strategy" in subject.given or subject.given.get("eval_steps") is None:
        return
    if evaluating in ("no", "epoch"):
        yield subject.warning(
            "eval_steps",
            f"is not used, since `eval_strategy` is {evaluating}: write eval_strategy: steps, or leave it out",
        )
