"""Shares the runs of a sweep between workers through an Optuna storage: a database or a journal file.

Each run is a trial. A worker creates a trial for the run that it wants, trains, and tells the result. Two workers may
want the same run at the same time; then the trial with the lower number keeps it. A worker counts up while it trains;
if the others see no change for a while, it is dead, and its run is free again.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil  # type: ignore[import-untyped]
from filelock import FileLock
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hf_sched.finetune.sweep.grid import Point
from hf_sched.finetune.sweep.halving import Results, Rung, Unit, next_units
from hf_sched.finetune.sweep.trial import LOG, Outcome, Recipe, end_processes, wait
from hf_sched.schedules.validation import ArgumentError

logger = logging.getLogger(__name__)

BEAT = 10.0
"""Seconds between two signs of life of a worker."""
DEAD_AFTER = 60.0
"""Seconds without a sign of life after which another worker takes the run over."""
LOCK_TIMEOUT = 60.0
"""Seconds that SQLite waits while another worker writes."""
MOST_FAILURES = 2
"""A run that fails so often, other than by the death of its worker, counts as failed."""
_JOURNALS = (".journal", ".log", ".jsonl")
_DISTRIBUTIONS = {
    "learning_rate": FloatDistribution(1e-300, 1e300, log=True),
    "seed": IntDistribution(0, 2**53),
    "steps": IntDistribution(1, 2**53),
}


def open_storage(place: str) -> optuna.storages.BaseStorage:
    """Open a storage: a URL, a journal file (.journal, .log, .jsonl), or else an SQLite file."""
    if "://" in place:
        return optuna.storages.RDBStorage(place)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    if place.endswith(_JOURNALS):
        return optuna.storages.JournalStorage(JournalFileBackend(place))
    Path(place).touch()  # fails at once, unlike the lock, if the file cannot be written
    with FileLock(f"{place}.lock", LOCK_TIMEOUT):  # Optuna's tables cannot be created by two workers at once
        return optuna.storages.RDBStorage(
            f"sqlite:///{place}", engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT}}
        )


@contextmanager
def explain_storage(place: str) -> Iterator[None]:
    """Raise an ArgumentError that names the storage if it cannot be used."""
    shown = re.sub(r"//[^/]*@", "//...@", place)
    try:
        yield
    except ModuleNotFoundError as error:
        raise ArgumentError("--storage", rule="needs a driver", received=shown, hint=f"install {error.name}") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        hint = f"{cause}; on a network disk, use a journal file: sweep.journal"
        raise ArgumentError("--storage", "a database or file that can be written", shown, hint) from None


@dataclass
class Worker:
    """A process that trains runs of a sweep until none is left."""

    recipe: Recipe
    points: Sequence[Point]
    rungs: Sequence[Rung]
    study: optuna.Study
    folder: Path
    train: Callable[[Worker, optuna.Trial, Unit, str], Outcome] = field(default=lambda *run: train_in_process(*run))
    """Trains a run from a checkpoint, if there is one."""
    beat_every: float = BEAT
    dead_after: float = DEAD_AFTER
    trained: int = 0
    """Optimizer steps of this worker."""
    _seen: dict[int, tuple[Any, float]] = field(default_factory=dict)
    """The last sign of life of each running trial, and when it was first seen here."""

    @classmethod
    def join(cls, storage: optuna.storages.BaseStorage, recipe: Recipe, **others: Any) -> Worker:
        """Join the study of the recipe's metric in a storage, and create the study if it does not exist."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=storage,
            study_name=f"hf_sched {recipe.metric}",
            direction="maximize" if recipe.higher else "minimize",
            load_if_exists=True,
        )
        return cls(recipe, study=study, **others)

    def run(self) -> Results:
        """Train until the sweep is done, and return all its results, those of other workers and sweeps included."""
        while True:
            trials = self.study.get_trials(deepcopy=False)
            results = self.results(trials)
            number, wanted = next_units(self.points, self.rungs, results, higher=self.recipe.higher)
            if not wanted:
                return results
            busy = self._busy_keys(trials)
            free = [unit for unit in wanted if self.key(unit) not in busy]
            if not free:
                time.sleep(min(1.0, self.beat_every))
            elif (trial := self._claim(free[0])) is not None:
                self._train(trial, free[0], number)

    def key(self, unit: Unit) -> str:
        """Identify the result of a run."""
        return f"{self.recipe.trunk_key(unit)} {unit.steps}"

    def results(self, trials: Sequence[FrozenTrial]) -> Results:
        """Return the results of this sweep's runs among the trials."""
        by_key: dict[str, list[FrozenTrial]] = {}
        for trial in trials:
            by_key.setdefault(trial.user_attrs.get("key", ""), []).append(trial)
        found = {}
        for unit in self._units():
            of_unit = by_key.get(self.key(unit), [])
            values = [trial.value for trial in of_unit if trial.state == TrialState.COMPLETE]
            failures = [trial for trial in of_unit if trial.user_attrs.get("error")]
            diverged = any(trial.state == TrialState.PRUNED for trial in of_unit)
            if values:
                found[unit] = float(values[0] or 0.0)
            elif diverged or len(failures) >= MOST_FAILURES:
                found[unit] = float("nan")
        return found

    def errors(self) -> dict[Unit, str]:
        """Return how runs of this sweep diverged or failed."""
        texts = {trial.user_attrs.get("key"): trial.user_attrs.get("error", "") for trial in self.study.get_trials()}
        return {unit: texts[self.key(unit)] for unit in self._units() if texts.get(self.key(unit))}

    def _units(self) -> Iterator[Unit]:
        for rung in self.rungs:
            for seed in rung.seeds:
                for point in self.points:
                    yield Unit(point, seed, rung.steps)

    def _claim(self, unit: Unit) -> optuna.Trial | None:
        """Return a trial for the run; None if another worker was faster.

        A trial is created in one transaction, running and with its key. `Study.ask` with a queue is not safe: two
        workers may get the same trial from SQLite.
        """
        key, claim = self.key(unit), uuid.uuid4().hex
        me = {"host": socket.gethostname(), "pid": os.getpid(), "created": psutil.Process().create_time()}
        about = {"key": key, "trunk": self.recipe.trunk_key(unit), "hold": unit.hold, "others": dict(unit.point.others)}
        values = {"learning_rate": unit.point.peak, "seed": unit.seed, "steps": unit.steps}
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params=values,
                distributions=_DISTRIBUTIONS,
                user_attrs={**about, **me, "claim": claim},
            )
        )
        same = [one for one in self.study.get_trials(deepcopy=False) if one.user_attrs.get("key") == key]
        first = next(one for one in same if one.state != TrialState.FAIL)
        trial = next(one for one in same if one.user_attrs["claim"] == claim)
        if trial.number == first.number:
            return optuna.Trial(self.study, trial._trial_id)
        self.study.tell(trial.number, state=TrialState.FAIL)
        return None

    def _busy_keys(self, trials: Sequence[FrozenTrial]) -> set[str]:
        """Return the keys of the runs of workers that are alive, and free those of dead ones."""
        busy = set()
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            if self._is_dead(trial):
                logger.warning(f"trial {trial.number} has lost its worker; its run starts again")
                if trial.user_attrs["host"] == socket.gethostname() and "child" in trial.user_attrs:
                    end_processes(*trial.user_attrs["child"])
                    shutil.rmtree(self.folder_of(trial.number), ignore_errors=True)
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                busy.add(trial.user_attrs.get("key", ""))
        return busy

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / f"{number}"

    def _is_dead(self, trial: FrozenTrial) -> bool:
        about = trial.user_attrs
        sign, now = about.get("beat"), time.monotonic()
        if self._seen.setdefault(trial.number, (sign, now))[0] != sign:
            self._seen[trial.number] = (sign, now)
        if now - self._seen[trial.number][1] > self.dead_after:
            return True
        if about.get("host") != socket.gethostname():
            return False
        try:
            return psutil.Process(about["pid"]).create_time() != about["created"]
        except psutil.NoSuchProcess:
            return True

    def _train(self, trial: optuna.Trial, unit: Unit, number: int) -> None:
        checkpoint, done = self._longest_hold(unit)
        start = time.monotonic()
        try:
            outcome = self.train(self, trial, unit, checkpoint)
            seconds = round(time.monotonic() - start, 1)
            about = {"trained": unit.steps - done, "seconds": seconds, "checkpoint": outcome.checkpoint}
            for name, value in {**about, "error": outcome.error}.items():
                trial.set_user_attr(name, value)
            state = TrialState.PRUNED if outcome.diverged else TrialState.FAIL if outcome.error else None
            self.study.tell(trial, outcome.value, state)
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning(f"trial {trial.number} was taken over by another worker, which saw no sign of this one")
            return
        except BaseException:
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        self.trained += unit.steps - done
        if checkpoint and outcome.value is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)
        shown = outcome.error if outcome.value is None else f"{self.recipe.metric} {outcome.value:.4g}"
        at = f"rung {number + 1} of {len(self.rungs)}, {unit.point}, seed {unit.seed}, {unit.steps} steps"
        logger.info(f"{at}: {shown} ({seconds:.0f} s)")

    def _longest_hold(self, unit: Unit) -> tuple[str, int]:
        """Return the last checkpoint on this machine that the run can continue, and its step."""
        trunk, found = self.recipe.trunk_key(unit), [("", 0)]
        for trial in self.study.get_trials(deepcopy=False):
            about = trial.user_attrs
            is_shorter = about.get("trunk") == trunk and 0 < about["hold"] <= unit.hold
            if is_shorter and about.get("checkpoint") and Path(about["checkpoint"]).is_dir():
                found.append((about["checkpoint"], about["hold"]))
        return max(found, key=lambda each: each[1])

    def delete_checkpoints(self) -> None:
        """Delete the checkpoints of this sweep's runs."""
        trunks = {self.recipe.trunk_key(unit) for unit in self._units()}
        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get("trunk") in trunks and trial.user_attrs.get("checkpoint"):
                shutil.rmtree(trial.user_attrs["checkpoint"], ignore_errors=True)


def train_in_process(worker: Worker, trial: optuna.Trial, unit: Unit, checkpoint: str) -> Outcome:
    """Train in a process of the recipe."""
    folder = worker.folder_of(trial.number)
    config = worker.recipe.write_config(unit, folder, checkpoint)
    process = worker.recipe.launch(config, folder / LOG)
    trial.set_user_attr("child", [process.pid, psutil.Process(process.pid).create_time()])
    beats = iter(range(2**53))
    status = wait(process, lambda: trial.set_user_attr("beat", next(beats)), worker.beat_every)
    return worker.recipe.outcome(unit, folder, status)
