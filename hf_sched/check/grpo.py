"""GRPO and RLOO: a generation batch must hold whole groups of completions, on as many processes as there are."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject


def check_generation(subject: Subject, processes: int | None) -> Iterator[Finding]:
    """What TRL refuses in `GRPOConfig`; None: nobody says how many processes there will be."""
    if subject.kind not in ("grpo", "rloo"):
        return
    if subject.value("auto_find_batch_size") is True:
        yield subject.error(
            "auto_find_batch_size",
            "would break up groups of completions: leave it out, and lower `per_device_train_batch_size`",
        )
    batch, group = subject.whole("generation_batch_size"), subject.whole("num_generations")
    per_device, rounds = subject.whole("per_device_train_batch_size"), subject.whole("steps_per_generation")
    accumulation = subject.whole("gradient_accumulation_steps")
    if batch is not None and rounds is not None:
        yield subject.error("steps_per_generation", "says the same as `generation_batch_size`: leave one of them out")
        return
    if not group or group < 2 or not per_device or not accumulation:
        return  # judged by itself
    if batch is not None:
        yield from _check_batch(subject, batch, group, per_device, processes)
    else:
        yield from _check_groups(subject, group, per_device, rounds or accumulation, processes)
    yield from _check_evaluation(subject, group, processes)


def _check_batch(subject: Subject, batch: int, group: int, per_device: int, processes: int | None) -> Iterator[Finding]:
    if processes is None and batch % per_device == 0:
        _note(subject, f"whether `generation_batch_size` ({batch}) is a multiple of {per_device} completions a process")
    at_once = per_device * (processes or 1)
    if batch % at_once:
        yield subject.error(
            "generation_batch_size",
            f"must be a multiple of per_device_train_batch_size * processes ({at_once}), received {batch}: "
            f"write {at_once * max(1, round(batch / at_once))}",
        )
    if batch % group:
        yield subject.error(
            "generation_batch_size",
            f"must be a multiple of num_generations ({group}), received {batch}: "
            f"write {math.ceil(batch / group) * group}",
        )


def _check_groups(
    subject: Subject, group: int, per_device: int, rounds: int, processes: int | None
) -> Iterator[Finding]:
    batch = per_device * rounds
    if batch % group == 0:
        return
    if processes is None:
        needed = group // math.gcd(batch, group)
        _note(
            subject,
            f"whether groups of {group} completions (`num_generations`) fill a generation batch, as they do on "
            f"{needed}, {2 * needed}, ... processes",
        )
        return
    if batch * processes % group:
        fitting = [size for size in range(2, batch * processes + 1) if batch * processes % size == 0]
        nearest = min(fitting, key=lambda size: abs(size - group), default=None)
        instead = f"num_generations: {nearest}" if nearest else f"per_device_train_batch_size: {group}"
        yield subject.error(
            "num_generations" if "num_generations" in subject.given else "per_device_train_batch_size",
            f"{group} completions a prompt (`num_generations`) must divide the generation batch of {batch * processes} "
            f"(per_device_train_batch_size {per_device} * steps_per_generation {rounds} * {processes} "
            f"{'process' if processes == 1 else 'processes'}): "
            f"write {instead}",
        )


def _check_evaluation(subject: Subject, group: int, processes: int | None) -> Iterator[Finding]:
    if subject.text("eval_strategy") not in ("steps", "epoch"):
        return
    group = subject.whole("num_generations_eval") or group
    per_device = subject.whole("per_device_eval_batch_size")
    if per_device is None or per_device % group == 0:
        return
    if processes is None:
        _note(subject, f"whether groups of {group} completions fill an evaluation batch")
    elif per_device * processes % group:
        key = next(
            (k for k in ("per_device_eval_batch_size", "num_generations_eval") if k in subject.given), "eval_strategy"
        )
        yield subject.error(
            key,
            f"an evaluation batch of {per_device} * {processes} completions must hold whole groups of {group}: "
            f"write per_device_eval_batch_size: {math.ceil(per_device / group) * group}",
        )


def _note(subject: Subject, what: str) -> None:
    subject.not_judged.append(f"{what}: give the number of processes (`--world-size`)")
