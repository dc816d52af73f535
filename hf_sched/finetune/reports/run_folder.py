"""Reads what a run left in its folder, finished or not, by a recipe or another Trainer, without running its code."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched._run_files import LEARNING_RATES, RUN, read_json
from hf_sched.audit import AuditReport, audit
from hf_sched.audit.pickles import Inert, read_pickle
from hf_sched.finetune.provenance import hide, read_provenance
from hf_sched.schedules.validation import ArgumentError

Array = npt.NDArray[np.float64]

# Names and places, which do not distinguish two runs.
PLACES = ("output_dir", "logging_dir", "run_name", "config", "hub_model_id", "resume_from_checkpoint")


@dataclass(frozen=True)
class RunFolder:
    """A run, as far as its folder describes it."""

    folder: Path
    name: str
    """Unique among the runs of a report."""
    state: Mapping[str, Any]
    """The latest state of the Trainer; empty if none was saved."""
    saved_args: Any
    """The object in `training_args.bin`; None if there is none."""
    sessions: list[dict[str, Any]]
    """The entries of `run.json`, one for the start and one for each resume."""

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> RunFolder:
        """Read a run's folder.

        Raises:
            ValueError: The folder holds no run, or a file in it is damaged.
        """
        checkpoints = sorted(folder.glob("checkpoint-*"), key=_number, reverse=True)
        # A process that was killed while it wrote the state leaves an empty file.
        paths = [path for place in (folder, *checkpoints) if (path := place / "trainer_state.json").is_file()]
        paths = [path for path in paths if path.stat().st_size]
        if not paths and not (folder / LEARNING_RATES).is_file():
            rule = f"has no trainer_state.json, no checkpoint with one and no {LEARNING_RATES}"
            raise ArgumentError(str(folder), rule=rule, hint="give the `output_dir` of a Trainer")
        newest = [path for path in paths if path.parent != folder][:1]
        states = {path.parent: read_json(path) for path in paths if path.parent == folder or path in newest}
        place = max(states, key=lambda place: (states[place].get("global_step", 0), place == folder), default=folder)
        saved = (path for at in (folder, place, *checkpoints) if (path := at / "training_args.bin").is_file())
        args = next(saved, None)
        return cls(
            folder,
            name or folder.resolve().name,
            states.get(place, {}),
            read_pickle(args) if args else None,
            read_provenance(folder / RUN),
        )

    @property
    def file_name(self) -> str:
        """The name, as the beginning of a file's name."""
        return re.sub(r"[^\w.-]+", "_", self.name)

    @cached_property
    def _logged(self) -> dict[str, tuple[Array, Array]]:
        rows = [row for row in self.state.get("log_history", []) if "step" in row]
        steps = np.array([row["step"] - 1 for row in rows], dtype=np.float64)
        found = {}
        for key in dict.fromkeys(key for row in rows for key in row):
            with suppress(TypeError, ValueError):  # text
                values = np.array([row.get(key) for row in rows], dtype=np.float64)
                is_known = np.isfinite(values)
                if is_known.any():
                    found[key] = steps[is_known], values[is_known]
        return found

    def logged(self, key: str) -> tuple[Array, Array]:
        """The optimizer steps (from 0) at which a number was logged, and its values; both empty if it never was."""
        return self._logged.get(key, (np.empty(0), np.empty(0)))

    @property
    def keys(self) -> list[str]:
        """The names of the logged numbers."""
        return list(self._logged)

    @property
    def rewards(self) -> list[str]:
        """The keys of the parts of the reward."""
        return [key for key in self.keys if key.startswith("rewards/") and key.endswith("/mean")]

    @property
    def is_rl(self) -> bool:
        """Whether the run was trained on rewards."""
        return "reward" in self.keys

    @property
    def steps_made(self) -> int:
        """The last known step; `learning_rates.jsonl` also holds steps after the last checkpoint."""
        recorded = self.audit.record.steps_made if isinstance(self.audit, AuditReport) else 0
        return max(int(self.state.get("global_step", 0)), recorded)

    @property
    def steps_planned(self) -> int | None:
        """The length of the run, if it is known."""
        if isinstance(self.audit, AuditReport):
            return self.audit.record.plans[-1].total
        return int(self.state.get("max_steps") or 0) or None

    @cached_property
    def audit(self) -> AuditReport | str:
        """Planned and actual learning rates; or the reason why they cannot be compared."""
        try:
            return audit(self.folder)
        except (ValueError, KeyError) as error:
            return str(error)

    @property
    def resumes(self) -> list[int]:
        """The optimizer steps at which the run was resumed."""
        steps = {session["step"] for session in self.sessions if session["step"]}
        # From another source, the audit knows only the checkpoints, at which the run may have been resumed.
        if isinstance(self.audit, AuditReport) and self.audit.record.source == LEARNING_RATES:
            steps |= set(self.audit.record.resumes)
        return sorted(steps)

    @property
    def requested(self) -> dict[str, Any]:
        """The given arguments; if they were not recorded, the Trainer's arguments that differ from their defaults."""
        if self.sessions:
            return dict(self.sessions[-1].get("arguments") or {})
        from transformers import TrainingArguments

        fields = dataclasses.fields(TrainingArguments)
        usual = {field.name: getattr(field.default, "value", field.default) for field in fields}
        empty: tuple[Any, ...] = (None, False, "", [], {})
        return {key: value for key, value in self.settings.items() if value not in (*empty, usual.get(key))}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All of the Trainer's arguments, without secrets."""
        args = vars(self.saved_args) if self.saved_args else {}
        plain = {key: _plain(value) for key, value in args.items() if not key.startswith(("_", "hf_deeps"))}
        return dict(hide({key: value for key, value in plain.items() if not isinstance(value, Inert)}))

    @property
    def comparable(self) -> dict[str, Any]:
        """Given and default arguments, without names and places."""
        given = self.sessions[-1].get("arguments") or {} if self.sessions else {}
        return {key: value for key, value in {**given, **self.settings}.items() if key not in PLACES}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The results of the run's own evaluation, by model; empty if there is none."""
        path = self.folder / "evaluation.json"
        return read_evaluation(path) if path.is_file() else {}

    def result(self, results: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of this run's model in `results`, else in its own evaluation."""
        for model, result in {**self.evaluation, **results}.items():
            if Path(model).resolve() == self.folder.resolve():
                return dict(result)
        return None


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read the results that `hf-sched evaluate` wrote.

    Raises:
        ValueError: The file is missing, damaged, or has another format.
    """
    try:
        results = read_json(path)
    except OSError as error:
        raise ArgumentError("--evaluation", "a file that `hf-sched evaluate` wrote", str(path), str(error)) from None
    for result in results.values():
        if not isinstance(result, dict) or not {"exact_match", "interval", "completions"} <= result.keys():
            raise ValueError(f"{path} was not written by this version of `hf-sched evaluate`: run it again")
    return results


def load_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read the folders of runs. Runs with equal names get the names of their parent folders in front.

    Raises:
        ValueError: A folder is given twice, or holds no run.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ArgumentError("RUN", "different folders", [str(folder) for folder in folders])
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = ["/".join(part for part in path.parts[-depth:] if part != "/") for path in paths]
    return [RunFolder.load(folder, name) for folder, name in zip(folders, names, strict=True)]


def _number(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _plain(value: Any) -> Any:
    """A value of a pickle as plain data: enum members as their values, unknown objects in lists as text."""
    if isinstance(value, Inert):
        made_of = value.__dict__.get("made_of", ())
        is_simple = len(made_of) == 1 and isinstance(made_of[0], (str, int, float))
        return made_of[0] if is_simple else value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [str(one) if isinstance(one, Inert) else one for one in value]
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value
