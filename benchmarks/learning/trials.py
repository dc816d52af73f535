"""Run many trainings of a recipe side by side in processes; finished ones are kept and not repeated."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.task import ROOT
from hf_sched.audit import audit
from hf_sched.reference.named_schedule import NamedSchedule

RESULT = "result.json"
# Imported once, by the process that the trainings are forked from.
_PRELOAD = ["hf_sched.finetune.sft", "hf_sched.finetune.grpo", "matplotlib.figure", "scipy.stats"]


@dataclass(frozen=True)
class Recipe:
    """A recipe's configuration, and how its trainings are judged."""

    config: Path
    output: Path
    seeds: Sequence[int]
    metric: str = "eval_loss"
    """A key of the trainer's last evaluation."""
    flags: Sequence[str] = ()
    """More flags for the recipe; `{seed}` in them becomes the seed."""
    jobs: int | None = None
    """Trainings at a time; by default one per CPU core."""

    @property
    def given(self) -> dict[str, Any]:
        """The keys of the configuration."""
        return dict(yaml.safe_load(self.config.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Its path below the folder of all trainings."""
    schedule: NamedSchedule
    peak: float
    seed: int
    flags: tuple[str, ...] = ()
    is_branch: bool = False
    """Whether it continues from a checkpoint of a trial that is no branch, which must finish first."""

    def folder(self, recipe: Recipe) -> Path:
        """Return its output folder."""
        return recipe.output / "runs" / self.name

    def words(self, recipe: Recipe) -> list[str]:
        """Return the recipe's command for it."""
        kind = "grpo" if "reward_funcs" in recipe.given else "sft"
        arguments: dict[str, Any] = {
            "config": recipe.config,
            "lr_scheduler_type": self.schedule.name,
            "lr_scheduler_kwargs": json.dumps(dict(self.schedule.arguments)),
            "learning_rate": self.peak,
            "seed": self.seed,
            "output_dir": self.folder(recipe),
            "save_strategy": "no",
            "report_to": "none",
            # The last epoch ends with the run, so this also evaluates a run shorter than an epoch.
            "eval_strategy": "epoch",
            **({"warmup_steps": 0} if self.schedule.has_own_warmup else {}),
        }
        words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        flags = (flag.replace("{seed}", str(self.seed)) for flag in (*recipe.flags, *self.flags))
        return [str(ROOT / "recipes" / f"{kind}.py"), *words, *flags]


@dataclass(frozen=True)
class Outcome:
    """The result of a training, a row of runs.csv."""

    schedule: str
    learning_rate: float
    seed: int
    metric: str
    value: float | None
    """The metric on held-out data; None if the training failed, for example by diverging."""
    steps: int
    seconds: float
    deviation: float | None
    """The largest deviation of a learning rate from the plan, over all optimizer steps."""
    error: str = ""


def run_trials(recipe: Recipe, trials: Sequence[Trial]) -> list[Outcome]:
    """Run the trials that have no result yet, and return the outcomes of all.

    Raises:
        ValueError: The output folder holds a result for different arguments, or the metric does not exist.
    """
    todo = [trial for trial in trials if _read_outcome(recipe, trial) is None]
    jobs = recipe.jobs or len(os.sched_getaffinity(0))
    print(f"{len(trials) - len(todo)} of {len(trials)} trainings are done already; {jobs} at a time", flush=True)
    numbers = itertools.count(1)

    def run_one(trial: Trial) -> None:
        outcome = _train(recipe, trial)
        result = outcome.error or f"{outcome.metric} {outcome.value:.4g}"
        print(f"{next(numbers)}/{len(todo)} {trial.name}: {result} ({outcome.seconds:.0f} s)", flush=True)

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ThreadPoolExecutor(jobs) as pool:
        for is_branch in (False, True):
            list(pool.map(run_one, [trial for trial in todo if trial.is_branch == is_branch]))
    return [outcome for trial in trials if (outcome := _read_outcome(recipe, trial))]


def _read_outcome(recipe: Recipe, trial: Trial) -> Outcome | None:
    file = trial.folder(recipe) / RESULT
    if not file.is_file():
        return None
    kept = json.loads(file.read_text(encoding="utf-8"))
    if kept.pop("words") != trial.words(recipe):
        raise ValueError(
            f"`--output` must be a new folder or one with the same settings: {file.parent} was trained with different "
            "arguments"
        )
    return Outcome(**kept)


def _train(recipe: Recipe, trial: Trial) -> Outcome:
    folder, words = trial.folder(recipe), trial.words(recipe)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.monotonic()
    # A fork of a process that has imported everything starts at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    process = context.Process(target=_run_recipe, args=(words, folder / "log.txt"))
    process.start()
    process.join()
    facts = (trial.schedule.label, trial.peak, trial.seed, recipe.metric)
    seconds = round(time.monotonic() - start, 1)
    if process.exitcode:
        error = f"exit status {process.exitcode}: {_last_error(folder / 'log.txt')}"
        outcome = Outcome(*facts, None, 0, seconds, None, error)
    else:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        value = _last_value(recipe.metric, state["log_history"])
        outcome = Outcome(*facts, value, state["global_step"], seconds, audit(folder).deviation)
    partial = folder / "result.tmp"
    partial.write_text(json.dumps({"words": words, **asdict(outcome)}), encoding="utf-8")
    os.replace(partial, folder / RESULT)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    return outcome


def _last_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1])


def _last_value(metric: str, history: Sequence[dict[str, Any]]) -> float:
    found = [row[metric] for row in history if metric in row]
    if not found:
        known = sorted({key for row in history for key in row if key.startswith("eval_")})
        raise ValueError(f"`--metric` must be one of {', '.join(known)}, received {metric!r}")
    return float(found[-1])


def _run_recipe(words: list[str], log: Path) -> None:
    """Do what `python recipe ...` does, in a child process that prints into a file."""
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.argv = words
    sys.orig_argv = [sys.executable, *words]  # recorded in run.json
    runpy.run_path(words[0], run_name="__main__")
