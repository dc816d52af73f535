"""The cases: trainings that are killed and resumed, or spread over processes and hosts, and what is compared."""

from __future__ import annotations

import filecmp
import functools
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hf_sched
from benchmarks.common.recipe_runs import (
    LAUNCHES,
    PEAK,
    SAVE_STEPS,
    SCHEDULE,
    STEPS,
    WARMUP_STEPS,
    Run,
    RunFailed,
    Workshop,
    random_moment,
)
from benchmarks.reliability.two_hosts import HOSTS, finish_both, network, start_on_both

BOUND = 1e-5
"""The largest deviation of a loss that a different order of summation may cause."""


@dataclass(frozen=True)
class Row:
    """A row of the table; None if nothing was measured or there is nothing to compare."""

    case: str
    processes: str
    trials: int
    rate: float | None
    loss: float | None
    loss_bound: float = 0.0
    notes: str = ""

    @property
    def holds(self) -> bool:
        """Whether losses are within the bound, and learning rates do not deviate at all."""
        return (self.rate or 0.0) == 0.0 and (self.loss or 0.0) <= self.loss_bound


@dataclass(frozen=True)
class Settings:
    """Settings of a case."""

    workshop: Workshop
    trials: int
    report: Callable[[str], None]
    """Takes a line of progress."""


def deviation(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest difference of two runs; infinity if the number of steps differs or a value is NaN."""
    if len(found) != len(expected):
        return math.inf
    differences = [abs(a - b) for a, b in zip(found, expected, strict=True)]
    return max((math.inf if math.isnan(d) else d for d in differences), default=math.inf)


def deviation_from_plan(run: Run, recipe: str) -> float:
    """Return the largest deviation of a run's learning rates from the schedule."""
    plan = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP_STEPS, **SCHEDULE)
    return deviation(run.logged("learning_rate"), plan.curve(peak=PEAK[recipe]).tolist())


def is_torn(checkpoint: Path, whole: Path) -> bool:
    """Return whether files, or parts of files, are missing that the checkpoint of an uninterrupted run has."""
    for file in whole.iterdir():
        found = checkpoint / file.name
        if not found.is_file():
            return True
        # The trainer's state contains times, so its size varies.
        if file.name != "trainer_state.json" and found.stat().st_size != file.stat().st_size:
            return True
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError:
        return True
    return False


def kill_and_resume(recipe: str, where: str, settings: Settings) -> list[Row]:
    """Kill at random moments and run the same command again; every third kill aims at a checkpoint being written."""
    rng = random.Random(f"0 {recipe} {where}")
    launch = LAUNCHES[where]
    whole = settings.workshop.whole(recipe, where)
    rates = [deviation_from_plan(whole, recipe)]
    losses: list[float] = []
    aimed = half_written = recognised = same_weights = restarted = number = 0
    failures: list[str] = []
    while len(losses) < settings.trials:
        number += 1
        folder = settings.workshop.place(recipe, where, number)
        aims = len(losses) % 3 == 0
        if not _kill_one(settings.workshop.start(recipe, launch, folder), whole, rng, aims):
            settings.report("the run ended before the kill; another moment is drawn")
            shutil.rmtree(folder.parent)
            continue
        aimed += aims
        checkpoints = list(folder.glob("checkpoint-*"))
        broken = [path.name for path in checkpoints if is_torn(path, whole.folder / path.name)]
        half_written += bool(broken)
        restarted += len(broken) == len(checkpoints)
        try:
            resumed = settings.workshop.start(recipe, launch, folder).finish()
        except RunFailed as error:
            failures.append(str(error))
            losses.append(math.inf)
            continue
        recognised += bool(broken) and all(f"{name} is incomplete" in resumed.output for name in broken)
        rates.append(deviation_from_plan(resumed, recipe))
        rates.append(deviation(resumed.logged("learning_rate"), whole.logged("learning_rate")))
        losses.append(deviation(resumed.logged("loss"), whole.logged("loss")))
        ours, theirs = (run.folder / "model.safetensors" for run in (resumed, whole))
        same_weights += filecmp.cmp(ours, theirs, shallow=False)
        settings.report(
            f"kill {len(losses)} of {settings.trials}: half-written: {broken or 'none'}; largest deviation "
            f"of rates {max(rates):.2g}, of losses {losses[-1]:.2g}"
        )
        shutil.rmtree(folder.parent)
    notes = (
        f"aimed at a checkpoint being written: {aimed}; half-written checkpoints: {half_written}, recognised: "
        f"{recognised}; final weights the same, byte for byte: {same_weights}"
    )
    if restarted:
        notes += f"; started from scratch, because there was no whole checkpoint yet: {restarted}"
    if failures:
        notes += f"; failed: {len(failures)} ({failures[-1]})"
    name = f"{recipe.upper()}, {launch.name}, SIGKILL and resume"
    return [Row(name, str(launch.processes), settings.trials, max(rates), max(losses), 0.0, notes)]


def _kill_one(run: Run, whole: Run, rng: random.Random, aims: bool) -> bool:
    if not run.wait_for(run.has_stepped):
        run.finish()
    processes = run.processes()
    if not aims:
        time.sleep(random_moment(rng, whole))
        return run.kill(processes)
    step = rng.randrange(2 * SAVE_STEPS, STEPS + 1, SAVE_STEPS)
    written = run.folder / f"checkpoint-{step}"
    if not run.wait_for(written.is_dir):
        return False
    time.sleep(rng.uniform(0, 0.01))  # the folder comes first, then one file after the other
    return run.kill(processes)


def spread(recipe: str, where: str, settings: Settings) -> list[Row]:
    """Train the same on other processes, and resume from a checkpoint in the middle."""
    launch = LAUNCHES[where]
    one, whole = settings.workshop.whole(recipe, "1"), settings.workshop.whole(recipe, where)
    name, processes = f"{recipe.upper()}, {launch.name}", str(launch.processes)
    rate = max(
        deviation_from_plan(whole, recipe), deviation(whole.logged("learning_rate"), one.logged("learning_rate"))
    )
    # In GRPO each process draws completions with its own random numbers, so losses differ.
    loss = deviation(whole.logged("loss"), one.logged("loss")) if recipe == "sft" and where != "1" else None
    if where == "1":
        notes = "the reference for the other launches"
    else:
        notes = "compared with one process" if recipe == "sft" else "losses differ: each process draws completions"
    rows = [Row(name, processes, 1, rate, loss, BOUND, notes)]
    settings.report(f"largest deviation of rates {rate:.2g}, of losses {loss}")

    middle = whole.folder / f"checkpoint-{STEPS // 2}"
    folder = settings.workshop.place(recipe, where, 999)
    resumed = settings.workshop.start(recipe, launch, folder, resume_from_checkpoint=str(middle)).finish()
    rate, loss = deviation_from_plan(resumed, recipe), deviation(resumed.logged("loss"), whole.logged("loss"))
    settings.report(f"resumed: largest deviation of rates {rate:.2g}, of losses {loss:.2g}")
    notes = f"from step {STEPS // 2}, compared with the same training uninterrupted"
    return [*rows, Row(f"{name}, resumed", processes, 1, rate, loss, BOUND, notes)]


def two_hosts(recipe: str, settings: Settings) -> list[Row]:
    """Train with two processes on each of two hosts, which are network namespaces."""
    one_host = settings.workshop.whole(recipe, "4")
    with network():
        whole = _on_both(recipe, 0, None, settings)
        # `save_on_each_node` omits the weights on all hosts but the first, and resuming needs them.
        first, second = (run.folder / f"checkpoint-{STEPS // 2}" for run in whole)
        for file in first.iterdir():
            if not file.name.startswith("rng_state") and not (second / file.name).exists():
                shutil.copy(file, second)
        resumed = _on_both(recipe, 1, STEPS // 2, settings)
    resumed_note = (
        f"from step {STEPS // 2}, compared with the same training uninterrupted; the second host's checkpoints have no "
        "weights under `save_on_each_node: true`, so the first host's were copied"
    )
    rows = []
    for name, runs, reference, note in (
        ("two hosts", whole, one_host, "compared with the same four processes on one host"),
        ("two hosts, resumed", resumed, whole[0], resumed_note),
    ):
        rate = max(deviation_from_plan(run, recipe) for run in runs)
        loss = max(deviation(run.logged("loss"), reference.logged("loss")) for run in runs)
        settings.report(f"{name}: largest deviation of rates {rate:.2g}, of losses {loss:.2g}")
        rows.append(Row(f"{recipe.upper()}, DDP, {name}", "2 + 2", 1, rate, loss, BOUND, note))
    return rows


def _on_both(recipe: str, number: int, middle: int | None, settings: Settings) -> list[Run]:
    of_hosts: list[dict[str, Any]] = []
    for host in HOSTS:
        # Each host has its own disk.
        arguments = {"folder": settings.workshop.place(recipe, host, number), "save_on_each_node": True}
        if middle is not None:
            checkpoint = settings.workshop.place(recipe, host, 0) / f"checkpoint-{middle}"
            arguments["resume_from_checkpoint"] = str(checkpoint)
        of_hosts.append(arguments)
    return finish_both(start_on_both(settings.workshop, recipe, LAUNCHES["4"], of_hosts))


Case = Callable[[Settings], list[Row]]
RECIPES = ("sft", "grpo")
CASES: dict[str, Case] = {
    **{f"kill-{kind}-{n}": functools.partial(kill_and_resume, kind, n) for n in ("1", "2") for kind in RECIPES},
    **{f"spread-{kind}-{where}": functools.partial(spread, kind, where) for kind in RECIPES for where in LAUNCHES},
    **{f"hosts-{kind}": functools.partial(two_hosts, kind) for kind in RECIPES},
}
