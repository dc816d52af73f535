"""Run many trainings of a recipe side by side in processes; finished ones are kept and not repeated."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import yaml

from benchmarks.common.task import ROOT
from hf_sched._run_files import write_json
from hf_sched.audit import audit
from hf_sched.reference.named_schedule import NamedSchedule

# Imported once, by the process that the trainings are forked from.
PRELOAD = ["hf_sched.finetune.sft", "hf_sched.finetune.grpo"]


@dataclass(frozen=True)
class Recipe:
    """A recipe's configuration, and what its trainings have in common."""

    config: Path
    output: Path
    seeds: Sequence[int]
    flags: Sequence[str] = ()
    """More flags for the recipe; `{seed}` in them becomes the seed."""
    jobs: int | None = None
    """Trainings at a time; by default one per CPU core."""

    @functools.cached_property
    def given(self) -> dict[str, Any]:
        """The keys of the configuration."""
        return dict(yaml.safe_load(self.config.read_text(encoding="utf-8")))

    @property
    def metric(self) -> str:
        """What is compared: the reward or the loss of the last evaluation."""
        return "eval_reward" if "reward_funcs" in self.given else "eval_loss"


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Its path below the folder of all trainings."""
    schedule: NamedSchedule
    peak: float
    seed: int
    flags: tuple[str, ...] = ()

    @property
    def is_branch(self) -> bool:
        """Whether it continues from a checkpoint of a trial that is no branch, which must finish first."""
        return "--anneal_from" in self.flags

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


def run_trials(recipe: Recipe, trials: Sequence[Trial]) -> pd.DataFrame:
    """Run the trials that have no result yet, and return a row for each trial (see report.py).

    Raises:
        ValueError: The output folder holds a result for different arguments.
    """
    todo = [trial for trial in trials if _read_result(recipe, trial) is None]
    jobs = recipe.jobs or len(os.sched_getaffinity(0))
    print(f"{len(trials) - len(todo)} of {len(trials)} trainings are done already; {jobs} at a time", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ThreadPoolExecutor(jobs) as pool:
        for is_branch in (False, True):
            waiting = [trial for trial in todo if trial.is_branch == is_branch]
            for row in pool.map(functools.partial(_train, recipe), waiting):
                at = f"{row['schedule']} at {row['learning_rate']:g}, seed {row['seed']}"
                print(f"{at}: {row['error'] or row['value']} ({row['seconds']:.0f} s)", flush=True)
    return pd.DataFrame([_read_result(recipe, trial) for trial in trials])


def _read_result(recipe: Recipe, trial: Trial) -> dict[str, Any] | None:
    file = trial.folder(recipe) / "result.json"
    if not file.is_file():
        return None
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if kept.pop("words") != trial.words(recipe):
        raise ValueError(f"`--output` must be a new folder: {file.parent} was trained with different arguments")
    return kept


def _train(recipe: Recipe, trial: Trial) -> dict[str, Any]:
    folder, words = trial.folder(recipe), trial.words(recipe)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.monotonic()
    # A fork of a process that has imported everything starts at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process = context.Process(target=run_recipe, args=(words, folder / "log.txt"))
    process.start()
    process.join()
    row: dict[str, Any] = {
        "schedule": trial.schedule.label,
        "learning_rate": trial.peak,
        "seed": trial.seed,
        "metric": recipe.metric,
        "value": None,
        "steps": 0,
        "seconds": round(time.monotonic() - start, 1),
        "deviation": None,
        "error": "",
    }
    if process.exitcode:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if "rror" in line]
        row["error"] = f"exit status {process.exitcode}: {(errors or lines or ['no output'])[-1]}"
    else:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        row["value"] = [logged[recipe.metric] for logged in state["log_history"] if recipe.metric in logged][-1]
        row |= {"steps": state["global_step"], "deviation": audit(folder).deviation}
    write_json(folder / "result.json", {"words": words, **row})
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    return row


def run_recipe(words: list[str], log: Path) -> None:
    """Do what `python recipe ...` does, in a child process that prints into a file."""
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    sys.argv = words
    sys.orig_argv = [sys.executable, *words]  # recorded in run.json
    runpy.run_path(words[0], run_name="__main__")
