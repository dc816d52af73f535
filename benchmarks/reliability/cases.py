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
from tests.helpers import recipe_runs as runs
from tests.helpers.recipe_runs import LAUNCHES, STEPS, Run, Workshop

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
    plan = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=runs.WARMUP_STEPS, **runs.SCHEDULE)
    return deviation(run.logged("learning_rate"), plan.curve(peak=runs.PEAK[recipe]).tolist())


def is_torn(checkpoint: Path, whole: Path) -> bool:
    """Return whether files, or parts of files, are missing that the checkpoint of an uninterrupted run has."""
    sizes = {file.name: file.stat().st_size for file in checkpoint.iterdir()}
    # The trainer's state contains times, so its size varies.
    if any(sizes.get(file.name) != file.stat().st_size for file in whole.iterdir() if file.suffix != ".json"):
        return True
    try:
        for file in whole.glob("*.json"):
            json.loads((checkpoint / file.name).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return True
    return False


def kill_and_resume(recipe: str, where: str, workshop: Workshop, trials: int) -> list[Row]:
    """Kill at random moments and run the same command again; every third kill aims at a checkpoint being written."""
    rng = random.Random(f"0 {recipe} {where}")
    launch = LAUNCHES[where]
    whole = workshop.whole(recipe, where)
    rates, losses = [deviation_from_plan(whole, recipe)], list[float]()
    counts: Counter[str] = Counter()
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
        resumed = workshop.start(recipe, launch, folder).finish()
        recognized = bool(torn) and all(f"{name} is incomplete" in resumed.output for name in torn)
        ours, theirs = (run.folder / "model.safetensors" for run in (resumed, whole))
        counts += Counter(aimed=aims, torn=bool(torn), recognized=recognized, restarted=len(torn) == len(checkpoints))
        counts["equal"] += filecmp.cmp(ours, theirs, shallow=False)
        rates.append(deviation_from_plan(resumed, recipe))
        losses.append(deviation(resumed.logged("loss"), whole.logged("loss")))
        logger.info(f"kill {len(losses)} of {trials}: half-written: {torn or 'no checkpoint'}")
        shutil.rmtree(folder.parent)
    notes = (
        f"aimed at a checkpoint being written: {counts['aimed']}; half-written checkpoints: {counts['torn']}, "
        f"recognized: {counts['recognized']}; final weights the same, byte for byte: {counts['equal']}"
    )
    if counts["restarted"]:
        notes += f"; started from scratch, because there was no whole checkpoint yet: {counts['restarted']}"
    name = f"{recipe.upper()}, {launch.name}, SIGKILL and resume"
    return [Row(name, launch.processes, trials, max(rates), max(losses), 0.0, notes)]


def _kill_one(run: Run, whole: Run, rng: random.Random, aims: bool) -> bool:
    if not run.wait_for(run.has_stepped):
        run.finish()  # raises what went wrong
    processes = run.processes()
    if not aims:
        time.sleep(runs.random_moment(rng, whole))
        return run.kill(processes)
    step = rng.randrange(2 * runs.SAVE_STEPS, STEPS + 1, runs.SAVE_STEPS)
    run.wait_for((run.folder / f"checkpoint-{step}").is_dir)
    time.sleep(rng.uniform(0, 0.01))  # the folder comes first, then one file after the other
    return run.kill(processes)


def spread(recipe: str, where: str, workshop: Workshop, _: int) -> list[Row]:
    """Train the same on other processes, and resume from a checkpoint in the middle."""
    launch = LAUNCHES[where]
    one, whole = workshop.whole(recipe, "1"), workshop.whole(recipe, where)
    name = f"{recipe.upper()}, {launch.name}"
    loss = None
    if where == "1":
        notes = "the reference for the other launches"
    elif recipe == "sft":
        notes, loss = "compared with one process", deviation(whole.logged("loss"), one.logged("loss"))
    else:  # each process has its own random numbers
        notes = "losses differ: each process draws completions"
    first = Row(name, launch.processes, 1, deviation_from_plan(whole, recipe), loss, BOUND, notes)

    middle = whole.folder / f"checkpoint-{STEPS // 2}"
    folder = workshop.place(recipe, where, 999)
    resumed = workshop.start(recipe, launch, folder, resume_from_checkpoint=str(middle)).finish()
    rate, loss = deviation_from_plan(resumed, recipe), deviation(resumed.logged("loss"), whole.logged("loss"))
    notes = f"from step {STEPS // 2}, compared with the same training uninterrupted"
    return [first, Row(f"{name}, resumed", launch.processes, 1, rate, loss, BOUND, notes)]


RECIPES = ("sft", "grpo")
CASES: dict[str, Callable[[Workshop, int], list[Row]]] = {
    **{f"kill-{kind}-{n}": functools.partial(kill_and_resume, kind, n) for n in ("1", "2") for kind in RECIPES},
    **{f"spread-{kind}-{where}": functools.partial(spread, kind, where) for kind in RECIPES for where in LAUNCHES},
}
