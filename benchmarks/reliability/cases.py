"""What is done to trainings (killed and resumed, spread over processes and hosts), and what is compared."""

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
from benchmarks.common import recipe_runs
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
)
from benchmarks.reliability.two_hosts import HOSTS, finish_both, network, start_on_both

# Sums of the same numbers in another order.
BOUND = 1e-5


@dataclass(frozen=True)
class Row:
    """A line of the table; None where nothing was measured or there is nothing to compare."""

    case: str
    processes: str
    trials: int
    rate: float | None
    loss: float | None
    loss_bound: float = 0.0
    notes: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing deviates by more than it may; learning rates may not at all."""
        return (self.rate or 0.0) == 0.0 and (self.loss or 0.0) <= self.loss_bound


@dataclass(frozen=True)
class Settings:
    """What a case is given."""

    workshop: Workshop
    trials: int
    seed: int
    say: Callable[[str], None]


def deviation(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference of two runs; infinite where one has other steps, or a value that is no number."""
    if len(found) != len(expected):
        return math.inf
    differences = [abs(a - b) for a, b in zip(found, expected, strict=True)]
    return max((math.inf if math.isnan(d) else d for d in differences), default=math.inf)


def off_plan(run: Run, recipe: str) -> float:
    """The largest deviation of a run's learning rates from the schedule."""
    plan = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP_STEPS, **SCHEDULE)
    return deviation(run.logged("learning_rate"), plan.curve(peak=PEAK[recipe]).tolist())


def torn(checkpoint: Path, sound: Path) -> bool:
    """Whether a checkpoint misses files, or parts of them, that the one of an uninterrupted run has."""
    for file in sound.iterdir():
        found = checkpoint / file.name
        if not found.is_file():
            return True
        if file.name != "trainer_state.json" and found.stat().st_size != file.stat().st_size:
            return True
    try:  # it names times, so that its length varies
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError:
        return True
    return False


def kill_and_resume(recipe: str, where: str, settings: Settings) -> list[Row]:
    """SIGKILL at random moments, then the same command again; every third is aimed at a checkpoint's writing."""
    rng = random.Random(f"{settings.seed} {recipe} {where}")
    launch = LAUNCHES[where]
    whole = settings.workshop.whole(recipe, where)
    rates = [off_plan(whole, recipe)]
    losses: list[float] = []
    aimed = half_written = recognised = same_weights = anew = number = 0
    failures: list[str] = []
    while len(losses) < settings.trials:
        number += 1
        folder = settings.workshop.place(recipe, where, number)
        aims = len(losses) % 3 == 0
        if not _kill_one(settings.workshop.start(recipe, launch, folder), whole, rng, aims):
            settings.say("had ended before the kill; drawn again")
            shutil.rmtree(folder.parent)
            continue
        aimed += aims
        checkpoints = list(folder.glob("checkpoint-*"))
        broken = [path.name for path in checkpoints if torn(path, whole.folder / path.name)]
        half_written += bool(broken)
        anew += len(broken) == len(checkpoints)
        try:
            resumed = settings.workshop.start(recipe, launch, folder).finish()
        except RunFailed as error:
            failures.append(str(error))
            losses.append(math.inf)
            continue
        recognised += bool(broken) and all(f"{name} is not whole" in resumed.output for name in broken)
        rates += [off_plan(resumed, recipe), deviation(resumed.logged("learning_rate"), whole.logged("learning_rate"))]
        losses.append(deviation(resumed.logged("loss"), whole.logged("loss")))
        same_weights += filecmp.cmp(
            resumed.folder / "model.safetensors", whole.folder / "model.safetensors", shallow=False
        )
        settings.say(
            f"kill {len(losses)} of {settings.trials} ({'aimed' if aims else 'random'}): {len(checkpoints)} checkpoints"
            f", half-written {broken or 'none'}; rates off by {max(rates):.2g}, losses by {losses[-1]:.2g}"
        )
        shutil.rmtree(folder.parent)
    notes = (
        f"aimed at a checkpoint being written: {aimed}; half-written checkpoints: {half_written}, recognised: "
        f"{recognised}; final weights the same, byte for byte: {same_weights}"
    )
    if anew:
        notes += f"; begun anew, since no whole checkpoint was there yet: {anew}"
    if failures:
        notes += f"; failed: {len(failures)} ({failures[-1]})"
    name = f"{recipe.upper()}, {launch.name}, SIGKILL and resume"
    return [Row(name, str(launch.processes), settings.trials, max(rates), max(losses), 0.0, notes)]


def _kill_one(run: Run, whole: Run, rng: random.Random, aims: bool) -> bool:
    if not run.wait_for(run.has_stepped):
        run.finish()
    processes = run.processes()
    if not aims:
        time.sleep(recipe_runs.random_moment(rng, whole))
        return run.kill(processes)
    step = rng.randrange(2 * SAVE_STEPS, STEPS + 1, SAVE_STEPS)
    written = run.folder / f"checkpoint-{step}"
    if not run.wait_for(written.is_dir):
        return False
    time.sleep(rng.uniform(0, 0.01))  # the folder comes first, then one file after the other
    return run.kill(processes)


def spread(recipe: str, where: str, settings: Settings) -> list[Row]:
    """The same training on other processes, and resumed from a checkpoint in the middle."""
    launch = LAUNCHES[where]
    one, whole = settings.workshop.whole(recipe, "1"), settings.workshop.whole(recipe, where)
    name, processes = f"{recipe.upper()}, {launch.name}", str(launch.processes)
    # In GRPO each process draws completions by random numbers of its own.
    loss = deviation(whole.logged("loss"), one.logged("loss")) if recipe == "sft" else None
    rate = max(off_plan(whole, recipe), deviation(whole.logged("learning_rate"), one.logged("learning_rate")))
    if where == "1":
        notes = "the training that the others are held against"
    else:
        notes = "beside one process" if recipe == "sft" else "no loss: each process draws completions of its own"
    rows = [Row(name, processes, 1, rate, None if where == "1" else loss, BOUND, notes)]
    settings.say(f"rates off by {rate:.2g}, losses by {loss}")

    middle = whole.folder / f"checkpoint-{STEPS // 2}"
    folder = settings.workshop.place(recipe, where, 999)
    resumed = settings.workshop.start(recipe, launch, folder, resume_from_checkpoint=str(middle)).finish()
    rate, loss = off_plan(resumed, recipe), deviation(resumed.logged("loss"), whole.logged("loss"))
    settings.say(f"resumed: rates off by {rate:.2g}, losses by {loss:.2g}")
    notes = f"from step {STEPS // 2}, beside the same training without a break"
    return [*rows, Row(f"{name}, resumed", processes, 1, rate, loss, BOUND, notes)]


def two_hosts(recipe: str, settings: Settings) -> list[Row]:
    """The same training on two processes of each of two hosts, which are network namespaces."""
    one_host = settings.workshop.whole(recipe, "4")
    with network():
        whole = _on_both(recipe, 0, None, settings)
        # `save_on_each_node` leaves the weights out on all hosts but the first: without them nothing resumes there.
        first, second = (run.folder / f"checkpoint-{STEPS // 2}" for run in whole)
        for file in first.iterdir():
            if not file.name.startswith("rng_state") and not (second / file.name).exists():
                shutil.copy(file, second)
        resumed = _on_both(recipe, 1, STEPS // 2, settings)
    rows = []
    for name, runs, reference, note in (
        ("two hosts", whole, one_host, "beside the same four processes on one host"),
        (
            "two hosts, resumed",
            resumed,
            whole[0],
            f"from step {STEPS // 2}, beside the same training without a break; the second host has no weights in its "
            "checkpoints under `save_on_each_node: true`, and was given the first's",
        ),
    ):
        rate = max(off_plan(run, recipe) for run in runs)
        loss = max(deviation(run.logged("loss"), reference.logged("loss")) for run in runs)
        settings.say(f"{name}: rates off by {rate:.2g}, losses by {loss:.2g}")
        rows.append(Row(f"{recipe.upper()}, DDP, {name}", "2 + 2", 1, rate, loss, BOUND, note))
    return rows


def _on_both(recipe: str, number: int, middle: int | None, settings: Settings) -> list[Run]:
    of_hosts: list[dict[str, Any]] = []
    for host in HOSTS:
        # Each host has a disk of its own.
        given = {"folder": settings.workshop.place(recipe, host, number), "save_on_each_node": True}
        if middle is not None:
            given["resume_from_checkpoint"] = str(settings.workshop.place(recipe, host, 0) / f"checkpoint-{middle}")
        of_hosts.append(given)
    return finish_both(start_on_both(settings.workshop, recipe, LAUNCHES["4"], of_hosts))


Case = Callable[[Settings], list[Row]]
CASES: dict[str, Case] = {
    **{
        f"kill-{recipe}-{where}": functools.partial(kill_and_resume, recipe, where)
        for where in ("1", "2")
        for recipe in ("sft", "grpo")
    },
    **{
        f"spread-{recipe}-{where}": functools.partial(spread, recipe, where)
        for recipe in ("sft", "grpo")
        for where in LAUNCHES
    },
    **{f"hosts-{recipe}": functools.partial(two_hosts, recipe) for recipe in ("sft", "grpo")},
}
