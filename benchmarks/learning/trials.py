"""Run many trainings of a recipe side by side in processes; finished ones are kept and not repeated."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import runpy
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.recipe_runs import ROOT
from hf_sched.audit import audit
from hf_sched.reference.named_schedule import NamedSchedule

RESULT = "result.json"
# Imported once, by the process that the trainings are forked from.
_PRELOAD = ["hf_sched.finetune.sft", "hf_sched.finetune.grpo", "matplotlib.figure", "scipy.stats"]


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Its path below the folder of all trainings."""
    words: tuple[str, ...]
    """The recipe's command, without `--output_dir`."""
    after: Trial | None = None
    """A training that must finish first, because this one continues from its checkpoint."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False, hash=False)
    """What the result says about it, such as schedule, peak and seed."""


@dataclass(frozen=True)
class Outcome:
    """The result of a training."""

    facts: dict[str, Any]
    value: float | None
    """The metric on held-out data; None if the training failed, for example by diverging."""
    steps: int
    seconds: float
    deviation: float | None
    """The largest deviation of a learning rate from the plan, over all optimizer steps."""
    error: str = ""
    """The error message, if the training failed."""


class Trials:
    """Trainings below one folder.

    Args:
        folder: The folder for their results.
        metric: A key of the trainer's last evaluation (`eval_loss`), or `exact_match` of the evaluation after the run.
        jobs: How many run at a time; by default one per GPU, or one per CPU core.
    """

    def __init__(self, folder: Path, metric: str, jobs: int | None = None) -> None:
        self.folder = folder
        self.metric = metric
        self._devices = _devices()
        self._jobs = jobs or len(self._devices) or len(os.sched_getaffinity(0))

    def path(self, trial: Trial) -> Path:
        """Return the folder of a trial."""
        return self.folder / "runs" / trial.name

    def run(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Run the trials that are not done yet, in order, and return the outcomes of all."""
        todo = [trial for trial in trials if self._done(trial) is None]
        print(
            f"{len(trials) - len(todo)} of {len(trials)} trainings are done already; {self._jobs} at a time", flush=True
        )
        seconds: list[float] = []
        free: queue.Queue[str | None] = queue.Queue()
        for number in range(self._jobs):
            free.put(self._devices[number % len(self._devices)] if self._devices else None)

        def one(trial: Trial) -> None:
            device = free.get()
            try:
                outcome = self._train(trial, device)
            finally:
                free.put(device)
            seconds.append(outcome.seconds)
            left = median(seconds) * (len(todo) - len(seconds)) / self._jobs / 60
            result = f"{self.metric} {outcome.value:.4g}" if outcome.value is not None else outcome.error
            took = f"{outcome.seconds:.0f} s; about {left:.0f} min left"
            print(f"{len(seconds)}/{len(todo)} {trial.name}: {result} ({took})", flush=True)

        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // self._jobs)))
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        with ThreadPoolExecutor(self._jobs) as pool:
            # In two rounds, because the second continues from checkpoints of the first.
            for is_second in (False, True):
                list(pool.map(one, [trial for trial in todo if (trial.after is not None) == is_second]))
        return [outcome for trial in trials if (outcome := self._done(trial)) is not None]

    def _done(self, trial: Trial) -> Outcome | None:
        file = self.path(trial) / RESULT
        if not file.is_file():
            return None
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept.pop("words") != list(trial.words):
            raise ValueError(
                f"`--output` must be a new folder or one with the same settings: {self.path(trial)} was trained with "
                "different arguments"
            )
        return Outcome(**kept)

    def _train(self, trial: Trial, device: str | None) -> Outcome:
        folder = self.path(trial)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        start = time.monotonic()
        # A fork of a process that has imported everything starts at once; a process that has used CUDA cannot fork.
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(_PRELOAD)
        words = [*trial.words, "--output_dir", str(folder)]
        context = multiprocessing.get_context("spawn") if device else forks
        process = context.Process(target=_run_recipe, args=(words, folder / "log.txt", device))
        process.start()
        process.join()
        outcome = self._outcome(trial, time.monotonic() - start, process.exitcode or 0)
        partial = folder / "result.tmp"
        partial.write_text(json.dumps({"words": trial.words, **asdict(outcome)}), encoding="utf-8")
        os.replace(partial, folder / RESULT)
        for weights in folder.glob("*.safetensors"):
            weights.unlink()
        return outcome

    def _outcome(self, trial: Trial, seconds: float, status: int) -> Outcome:
        folder = self.path(trial)
        if status:
            lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            error = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no output")
            return Outcome(trial.facts, None, 0, seconds, None, f"exit status {status}: {error}")
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        deviation = max(float(one.differences.max(initial=0.0)) for one in audit(folder).comparisons)
        value = _metric(folder, self.metric, state["log_history"])
        return Outcome(trial.facts, value, state["global_step"], seconds, deviation)


def recipe_words(
    config: Path, kind: str, schedule: NamedSchedule, peak: float, seed: int, metric: str, flags: Sequence[str]
) -> tuple[str, ...]:
    """Return the recipe's command for a schedule, without `--output_dir`; `{seed}` in the flags becomes the seed."""
    arguments: dict[str, Any] = {
        "config": config,
        "lr_scheduler_type": schedule.name,
        "lr_scheduler_kwargs": json.dumps(dict(schedule.arguments)),
        "learning_rate": peak,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        # The last epoch ends with the run, so this also evaluates a run shorter than an epoch.
        "eval_strategy": "no" if metric == "exact_match" else "epoch",
    }
    if schedule.has_own_warmup:
        arguments["warmup_steps"] = 0
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    return (str(ROOT / "recipes" / f"{kind}.py"), *words, *(flag.replace("{seed}", str(seed)) for flag in flags))


def _metric(folder: Path, name: str, history: Sequence[dict[str, Any]]) -> float:
    if name == "exact_match":
        results = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        return float(results[str(folder)]["exact_match"])
    found = [row[name] for row in history if name in row]
    if not found:
        known = sorted({key for row in history for key in row if key.startswith("eval_")})
        raise ValueError(f"`--metric` must be exact_match or one of {', '.join(known)}, received {name!r}")
    return float(found[-1])


def _run_recipe(words: list[str], log: Path, device: str | None) -> None:
    """Do what `python recipe ...` does, in a child process that prints into a file."""
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    sys.argv = words
    sys.orig_argv = [sys.executable, *words]  # recorded in run.json
    runpy.run_path(words[0], run_name="__main__")


def _devices() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",") if visible and count else [str(number) for number in range(count)]
