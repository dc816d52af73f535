"""Measure the CPU time of `step()`, of the callbacks and of a whole curve.

    python -m benchmarks.speed.run            # minutes; prints Markdown

Contenders take turns in interleaved rounds. Quick measurements (for tests) have fewer contenders, steps and rounds.
"""

from __future__ import annotations

import functools
import platform
import re
import tempfile
import time
import timeit
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import hf_sched
from benchmarks.common.reporting import installed_versions, table
from benchmarks.speed import contenders
from benchmarks.speed.contenders import PEAK, SCHEDULERS, numpy_curve
from benchmarks.speed.timing import Bound, Section, Timing, interleave
from hf_sched.callbacks.guard import LearningRateGuard

# By column: parameter groups, whether each has its own rate, whether the rates are tensors, steps of the run, and the
# bounds: times as fast as transformers, times as long as the bare loop (which does not support tensors).
STEP_COLUMNS = {
    "1 group": (1, False, False, 20_000, 8, 3),
    "10 groups": (10, True, False, 10_000, 8, 3),
    "1000 groups, one rate": (1000, False, False, 2_000, 15, 3),
    "1000 groups, a rate each": (1000, True, False, 2_000, 15, 3),
    "1 tensor": (1, False, True, 5_000, 2, None),
    "10 tensors": (10, True, True, 2_000, 2, None),
}
QUICK_CONTENDERS = ("hf_sched", "bare loop", "transformers")
CALLBACKS: dict[str, Sequence[Callable[[], TrainerCallback]]] = {
    "scheduler": (),
    "scheduler and guard": (LearningRateGuard,),
    "scheduler, log and live control": (hf_sched.LearningRateLog, hf_sched.LiveControl),
}


def measure_step(quick: bool = False) -> Section:
    """The time of a call of `step()`, on average over a whole run."""
    section = Section("step(): time per call")
    for column, (groups, own_rates, tensors, steps, faster, longer) in STEP_COLUMNS.items():
        steps = 200 if quick and groups > 10 else steps
        clock = functools.partial(_seconds_per_call, groups, own_rates, tensors, steps)
        names = [name for name in (QUICK_CONTENDERS if quick else SCHEDULERS) if name != "bare loop" or not tensors]
        timings = interleave({name: functools.partial(clock, name) for name in names}, 7)
        section.columns[column] = timings
        ours = timings["hf_sched"].best
        ratio = timings["transformers"].best / ours
        section.bounds.append(Bound(f"step(), {column}: times as fast as transformers", ratio, at_least=faster))
        if longer is not None:
            ratio = ours / timings["bare loop"].best
            section.bounds.append(Bound(f"step(), {column}: times as long as the bare loop", ratio, at_most=longer))
    section.remark = (
        "The bare loop looks up rates that were computed before. The scheduler of transformers is a LambdaLR. torch's "
        "CosineAnnealingLR has no warmup; its SequentialLR joins a LinearLR and a CosineAnnealingLR. A tensor is a "
        "float32 learning rate on the CPU, filled in place."
    )
    return section


def _seconds_per_call(groups: int, own_rates: bool, tensors: bool, steps: int, name: str) -> float:
    rates = [PEAK * (number + 1) / groups if own_rates else PEAK for number in range(groups)]
    peaks = [torch.tensor(rate) for rate in rates] if tensors else rates
    _, scheduler = contenders.start(name, peaks, steps // 10, steps)
    return timeit.timeit(scheduler.step, timer=time.thread_time, number=steps) / steps


def measure_callbacks(quick: bool = False) -> Section:
    """The time that callbacks add to an optimizer step without a log line, with one parameter group."""
    steps, rounds = (1_000, 7) if quick else (4_000, 15)
    with tempfile.TemporaryDirectory() as folder:
        clock = functools.partial(_seconds_per_step, Path(folder), steps)
        clocks = {name: functools.partial(clock, make) for name, make in CALLBACKS.items()}
        timings = interleave({"nothing": functools.partial(clock, (), False), **clocks}, rounds)
    base = timings.pop("nothing")
    added = {name: Timing(one.median - base.median, one.best - base.best) for name, one in timings.items()}
    scheduler, guard, others = (1e6 * one.best for one in added.values())
    return Section(
        "Callbacks: time added to an optimizer step",
        {"a step (compared with the scheduler)": added},
        [
            Bound("scheduler and guard, µs per step", guard, at_most=5),
            Bound("log and live control together, µs per step without a log line", others - scheduler, at_most=20),
        ],
        "One parameter group, float learning rate, no log line.",
    )


def _seconds_per_step(
    folder: Path, steps: int, make: Sequence[Callable[[], TrainerCallback]], scheduled: bool = True
) -> float:
    """Run a loop that calls callbacks and scheduler as the Trainer does; no step logs or saves.

    The time of the optimizer's step is included, because callbacks register hooks there.
    """
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=PEAK)
    given: dict[str, Any] = {"lr_scheduler_type": "cosine_floor", "learning_rate": PEAK, "logging_steps": 10 * steps}
    args = TrainingArguments(str(folder), max_steps=steps, use_cpu=True, report_to="none", **given)
    scheduler = hf_sched.get_scheduler("cosine_floor", optimizer, 0, steps, {})
    state, control = TrainerState(max_steps=steps, logging_steps=10 * steps), TrainerControl()
    context: dict[str, Any] = dict.fromkeys(("processing_class", "train_dataloader", "eval_dataloader"))
    context |= {"model": model, "optimizer": optimizer, "lr_scheduler": scheduler}
    callbacks = [one() for one in make]

    def call(*events: str) -> None:
        for event in events:
            for callback in callbacks:
                getattr(callback, event)(args, state, control, **context)

    call("on_train_begin")
    began = time.thread_time()
    for _ in range(steps):
        call("on_step_begin", "on_pre_optimizer_step")
        optimizer.step()
        call("on_optimizer_step")
        if scheduled:
            scheduler.step()
        state.global_step += 1
        call("on_step_end")
    seconds = time.thread_time() - began
    call("on_train_end")
    return seconds / steps


def measure_curve(quick: bool = False) -> Section:
    """The time of the learning rates of a whole run, for one parameter group."""
    steps, scalar_steps = 1_000_000, 2_000 if quick else 20_000
    warmup = steps // 10
    _, theirs = contenders.start("transformers", [PEAK], scalar_steps // 10, scalar_steps)
    (factor,) = theirs.lr_lambdas
    functions: dict[str, tuple[Callable[[], object], int]] = {
        "hf_sched": (
            lambda: hf_sched.build("warmup_cosine", num_training_steps=steps, num_warmup_steps=warmup).curve(peak=PEAK),
            steps,
        ),
        "plain NumPy": (lambda: numpy_curve(PEAK, warmup, steps), steps),
        "transformers": (lambda: [PEAK * factor(step) for step in range(scalar_steps)], scalar_steps),
    }

    def clock(function: Callable[[], object], computed: int) -> float:
        return timeit.timeit(function, timer=time.process_time, number=1) * steps / computed

    clocks = {name: functools.partial(clock, *of_name) for name, of_name in functions.items()}
    timings = interleave(clocks, 5 if quick else 11)
    ours, numpy, theirs = (one.best for one in timings.values())
    return Section(
        f"A whole curve of {steps:,} steps",
        {"a curve": timings},
        [
            Bound("curve: times as fast as transformers", theirs / ours, at_least=20),
            Bound("curve: times as long as plain NumPy", ours / numpy, at_most=1.5),
        ],
        f"transformers computes one step at a time: timed on {scalar_steps:,} steps and scaled.",
    )


SECTIONS: dict[str, Callable[..., Section]] = {
    "step": measure_step,
    "callbacks": measure_callbacks,
    "curve": measure_curve,
}


def report(sections: Sequence[Section]) -> str:
    """The page docs/speed.md."""
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) or [platform.machine()]
    versions = installed_versions("hf_sched", "numpy", "torch", "transformers")
    bounds = [bound.row() for section in sections for bound in section.bounds]
    return "\n\n".join(
        [
            "# Speed, side by side with other libraries",
            "Output of `make benchmark`. CPU times, medians over interleaved rounds; in brackets, the ratio to "
            "hf_sched in the fastest rounds. Other programs were running, so trust the ratios more than the times.",
            ", ".join([str(date.today()), models[0], *map(" ".join, versions.items())]),
            *map(str, sections),
            "\n".join(["## Bounds", "", *table(["", "limit", "measured", ""], bounds)]),
        ]
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="The epoch parameter")  # SequentialLR uses it
    print(report([measure() for measure in SECTIONS.values()]))
