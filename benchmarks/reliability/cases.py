"""The cases: trainings that are killed and resumed, or spread over processes, and what is compared."""

from __future__ import annotations

import filecmp
import functools
import itertools
import json
import logging
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hf_sched
from benchmarks.common.task import RunFailed
from tests.helpers.recipe_runs import (
    LAUNCHES,
    PEAK,
    SAVE_STEPS,
    SCHEDULE,
    STEPS,
    WARMUP_STEPS,
    Run,
    Workshop,
    random_moment,
)

logger = logging.getLogger(__name__)
BOUND = 1e-5
"""The largest deviation of a loss that a different order of summation may cause."""


@dataclass(frozen=True)
class Row:
    """A row of the table; None if nothing was measured or there is nothing to compare."""

    case: str
    processes: int
    trials: int
    rate: float | None
    loss: float | None
    loss_bound: float = 0.0
    notes: str = ""

    @property
    def holds(self) -> bool:
        """Whether losses are within the bound, and learning rates do not deviate at all."""
        return (self.rate or 0.0) == 0.0 and (self.loss or 0.0) <= self.loss_bound


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


def kill_and_resume(recipe: str, where: str, workshop: Workshop, trials: int) -> list[Row]:
    """Kill at random moments and run the same command again; every third kill aims at a checkpoint being written."""
    rng = random.Random(f"0 {recipe} {where}")
    launch = LAUNCHES[where]
    whole = workshop.whole(recipe, where)
    rates, losses = [deviation_from_plan(whole, recipe)], list[float]()
    counts: Counter[str] = Counter()
    last_failure = ""
    for number in itertools.count(1):
        if len(losses) == trials:
            break
        folder = workshop.place(recipe, where, number)
        aims = len(losses) % 3 == 0
        if not _kill_one(workshop.start(recipe, launch, folder), whole, rng, aims):
            logger.info("the run ended before the kill; another moment is drawn")
            continue
        checkpoints = list(folder.glob("checkpoint-*"))
        torn = [path.name for path in checkpoints if is_torn(path, whole.folder / path.name)]
        counts += Counter(aimed=aims, torn=bool(torn), restarted=len(torn) == len(checkpoints))
        try:
            resumed = workshop.start(recipe, launch, folder).finish()
        except RunFailed as error:
            last_failure = str(error)
            counts["failed"] += 1
            losses.append(math.inf)
            continue
        ours, theirs = (run.folder / "model.safetensors" for run in (resumed, whole))
        counts["recognized"] += bool(torn) and all(f"{name} is incomplete" in resumed.output for name in torn)
        counts["equal"] += filecmp.cmp(ours, theirs, shallow=False)
        rates.append(deviation_from_plan(resumed, recipe))
        rates.append(deviation(resumed.logged("learning_rate"), whole.logged("learning_rate")))
        losses.append(deviation(resumed.logged("loss"), whole.logged("loss")))
        logger.info(
            f"kill {len(losses)} of {trials}: half-written: {torn or 'no checkpoint'}; largest deviation of "
            f"rates {max(rates):.2g}, of losses {losses[-1]:.2g}"
        )
        shutil.rmtree(folder.parent)
    notes = (
        f"aimed at a checkpoint being written: {counts['aimed']}; half-written checkpoints: {counts['torn']}, "
        f"recognized: {counts['recognized']}; final weights the same, byte for byte: {counts['equal']}"
    )
    if counts["restarted"]:
        notes += f"; started from scratch, because there was no whole checkpoint yet: {counts['restarted']}"
    if counts["failed"]:
        notes += f"; failed: {counts['failed']} ({last_failure})"
    name = f"{recipe.upper()}, {launch.name}, SIGKILL and resume"
    return [Row(name, launch.processes, trials, max(rates), max(losses), 0.0, notes)]


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


def spread(recipe: str, where: str, workshop: Workshop, _: int) -> list[Row]:
    """Train the same on other processes, and resume from a checkpoint in the middle."""
    launch = LAUNCHES[where]
    one, whole = workshop.whole(recipe, "1"), workshop.whole(recipe, where)
    name, processes = f"{recipe.upper()}, {launch.name}", launch.processes
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

    middle = whole.folder / f"checkpoint-{STEPS // 2}"
    folder = workshop.place(recipe, where, 999)
    resumed = workshop.start(recipe, launch, folder, resume_from_checkpoint=str(middle)).finish()
    rate, loss = deviation_from_plan(resumed, recipe), deviation(resumed.logged("loss"), whole.logged("loss"))
    notes = f"from step {STEPS // 2}, compared with the same training uninterrupted"
    return [*rows, Row(f"{name}, resumed", processes, 1, rate, loss, BOUND, notes)]


RECIPES = ("sft", "grpo")
CASES: dict[str, Callable[[Workshop, int], list[Row]]] = {
    **{f"kill-{kind}-{n}": functools.partial(kill_and_resume, kind, n) for n in ("1", "2") for kind in RECIPES},
    **{f"spread-{kind}-{where}": functools.partial(spread, kind, where) for kind in RECIPES for where in LAUNCHES},
}
