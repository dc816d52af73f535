"""Many trainings by a recipe, side by side in processes of their own; what is done is kept, and not done again."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hf_sched.audit import audit
from hf_sched.reference.named_schedule import NamedSchedule

ROOT = Path(__file__).parents[2]
RESULT = "result.json"
# Imported once, by the process that the trainings are forked from.
_SHARED = ["sft", "grpo", "matplotlib.figure", "scipy.stats"]


@dataclass(frozen=True)
class Trial:
    """One training."""

    name: str
    """Where it is among the others: a path below the folder of all of them."""
    words: tuple[str, ...]
    """The recipe's command, without `--output_dir`."""
    after: Trial | None = None
    """One that must be done before, since this one goes on from a checkpoint of it."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False, hash=False)
    """What the result is to say of it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a training."""

    facts: dict[str, Any]
    value: float | None
    """The metric on held-out data; None for a training that failed, as one that diverges does."""
    steps: int
    seconds: float
    deviation: float | None
    """The largest deviation of a learning rate from the plan, of all optimizer steps."""
    error: str = ""
    """Its last words, if it failed."""


class Trials:
    """Trainings below one folder.

    Args:
        folder: Where they are kept.
        metric: What is asked of each: a key of the trainer's last evaluation (`eval_loss`), or `exact_match`, of the
            evaluation after the run (`evaluate_on`).
        jobs: How many run at a time; by default one for each GPU, or else for each core.
        budget: Seconds after which no further one is begun.
        say: Takes a line of progress.
    """

    def __init__(
        self,
        folder: Path,
        metric: str,
        *,
        jobs: int | None = None,
        budget: float = float("inf"),
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self.metric = metric
        self.say = say
        self._devices = _devices()
        self._jobs = jobs or len(self._devices) or len(os.sched_getaffinity(0))
        self._ends = time.monotonic() + budget
        self._took: list[float] = []
        self._lock = threading.Lock()

    def path(self, trial: Trial) -> Path:
        """The folder of a trial."""
        return self.folder / "runs" / trial.name

    def run(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Run those that are not done yet, in order; the outcomes of all that are done in the end."""
        todo = [trial for trial in trials if self._done(trial) is None]
        self.say(f"{len(trials) - len(todo)} of {len(trials)} trainings are done already, {self._jobs} at a time")
        begun = 0
        free: queue.Queue[str | None] = queue.Queue()
        for number in range(self._jobs):
            free.put(self._devices[number % len(self._devices)] if self._devices else None)

        def one(trial: Trial) -> None:
            nonlocal begun
            if self._is_over():
                return
            device = free.get()
            try:
                outcome = self._train(trial, device)
            finally:
                free.put(device)
            with self._lock:
                begun += 1
                self._took.append(outcome.seconds)
                left = median(self._took) * (len(todo) - begun) / self._jobs
                told = f"{self.metric} {outcome.value:.4g}" if outcome.value is not None else outcome.error
                took = f"{outcome.seconds:.0f} s; about {left / 60:.0f} min left"
                self.say(f"{begun}/{len(todo)} {trial.name}: {told} ({took})")

        _use_cores(self._jobs)
        with ThreadPoolExecutor(self._jobs) as pool:
            # In two rounds: what goes on from another has to find it there.
            for round_of in ([t for t in todo if t.after is None], [t for t in todo if t.after is not None]):
                list(pool.map(one, round_of))
        if begun < len(todo):
            self.say(f"the budget is spent: {len(todo) - begun} trainings are left; the same command goes on with them")
        return [outcome for trial in trials if (outcome := self._done(trial)) is not None]

    def _is_over(self) -> bool:
        with self._lock:
            return time.monotonic() + (median(self._took) if self._took else 0) > self._ends

    def _done(self, trial: Trial) -> Outcome | None:
        file = self.path(trial) / RESULT
        if not file.is_file():
            return None
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept.pop("words") != list(trial.words):
            raise ValueError(
                f"`--output` must be a new folder or one of the same settings: {self.path(trial)} was trained by other "
                "words"
            )
        return Outcome(**kept)

    def _train(self, trial: Trial, device: str | None) -> Outcome:
        folder = self.path(trial)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = time.monotonic()
        # A fork of a process that has imported everything begins at once; one that has used CUDA cannot be forked.
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(_SHARED)
        words = [*trial.words, "--output_dir", str(folder)]
        context = multiprocessing.get_context("spawn") if device else forks
        process = context.Process(target=_play, args=(words, folder / "log.txt", device))
        process.start()
        process.join()
        outcome = self._outcome(trial, time.monotonic() - began, process.exitcode or 0)
        whole = folder / "result.tmp"
        whole.write_text(json.dumps({"words": trial.words, **outcome.__dict__}), encoding="utf-8")
        os.replace(whole, folder / RESULT)
        for weights in folder.glob("*.safetensors"):
            weights.unlink()
        return outcome

    def _outcome(self, trial: Trial, seconds: float, status: int) -> Outcome:
        folder = self.path(trial)
        if status:
            lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            error = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "no word of it")
            return Outcome(trial.facts, None, 0, seconds, None, f"exit status {status}: {error}")
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        report = audit(folder)
        deviation = max(float(one.differences.max(initial=0.0)) for one in report.comparisons)
        value = _metric(folder, self.metric, state["log_history"])
        return Outcome(trial.facts, value, state["global_step"], seconds, deviation)


def recipe_words(
    config: Path, kind: str, schedule: NamedSchedule, peak: float, seed: int, metric: str, flags: Sequence[str]
) -> tuple[str, ...]:
    """The recipe's command for a schedule, without `--output_dir`; `{seed}` in the flags becomes the seed."""
    given: dict[str, Any] = {
        "config": config,
        "lr_scheduler_type": schedule.name,
        "lr_scheduler_kwargs": json.dumps(dict(schedule.arguments)),
        "learning_rate": peak,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        # After each epoch, and so at the end, also of a run that ends within one.
        "eval_strategy": "no" if metric == "exact_match" else "epoch",
    }
    if schedule.brings_warmup:
        given["warmup_steps"] = 0
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
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


def _play(words: list[str], log: Path, device: str | None) -> None:
    """In the process of a training: what `python recipe …` does, printing into a file."""
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    sys.argv = words
    sys.orig_argv = [sys.executable, *words]  # what run.json says of it
    runpy.run_path(words[0], run_name="__main__")


def _devices() -> list[str]:
    import torch

    if torch.cuda.device_count() == 0:
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]


def _use_cores(jobs: int) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    recipes = str(ROOT / "recipes")
    if recipes not in sys.path:
        sys.path.insert(0, recipes)
