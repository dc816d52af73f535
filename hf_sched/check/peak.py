"""A peak learning rate that is far from the usual ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.check.subject import Subject
from hf_sched.plan.run_length import Batching
from hf_sched.schedules.peak_range import OPTIMIZERS, PeakRange, peak_range
from hf_sched.schedules.validation import ArgumentError

TASKS = {"sft": "sft", "grpo": "rl", "rloo": "rl", "dpo": "dpo"}
"""The task of each kind of trainer with a range of usual peaks."""


def check_peak(subject: Subject) -> Iterator[Finding]:
    """Find a peak more than an order of magnitude outside the usual range, which may be right: a warning."""
    try:
        processes = subject.num_processes
        batch = None if processes is None else Batching.read(subject.usable, processes).effective_batch
        subject.peak = usual = usual_peaks(subject.config.kind, subject.get, batch)
    except ArgumentError:
        return
    peak = subject.get("learning_rate")
    if usual and peak and (times := usual.times_outside(peak)) > 10:
        rule = f"is {times:.0f} times {'above' if peak > usual.high else 'below'} the usual peaks, {usual}"
        yield subject.warning("learning_rate", f"{rule}: write {usual.start:.1e}, or keep it if you have tuned it")


def usual_peaks(kind: str, get: Callable[[str], Any], batch_size: int | None) -> PeakRange | None:
    """The usual peaks of a run, None if they are unknown.

    `get` returns an argument of the trainer or the model by name, None if it does not exist.
    """
    optim = get("optim")
    optimizer = str(getattr(optim, "value", optim)).removeprefix("paged_").partition("_")[0]
    if kind not in TASKS or optimizer not in OPTIMIZERS:
        return None
    width, layers = model_size(get("model_name_or_path"))
    lora = {name: get(name) for name in ("lora_r", "lora_alpha", "use_rslora")} if get("use_peft") else {}
    return peak_range(TASKS[kind], width=width, layers=layers, batch_size=batch_size, optimizer=optimizer, **lora)


def model_size(name: Any) -> tuple[int | None, int | None]:
    """The width and the number of layers of a model on this machine; None if they are unknown."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(name), local_files_only=True, trust_remote_code=False).get_text_config()
    except (OSError, ValueError):
        return None, None
    return getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
