"""What a run left in its folder, finished or not, by a recipe or by any Trainer, read without running what is in it.

- `trainer_state.json`, or that of its last checkpoint: what was logged;
- `training_args.bin`: what was requested, as far as the Trainer's own arguments go;
- `learning_rates.jsonl` (hf_sched.LearningRateLog): every step's learning rate and every resume;
- `run.json` (provenance.py): all arguments, versions, git commit;
- `evaluation.json` (evaluation.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
import trl

from hf_sched._run_files import LEARNING_RATES, RUN, read_json
from hf_sched.audit import AuditReport, audit
from hf_sched.audit.pickles import Inert, read_pickle
from hf_sched.finetune.provenance import hide, read_provenance

Array = npt.NDArray[np.float64]

# Where a run was, not how it was made: two runs need not be told apart by it.
NOT_HOW = ("output_dir", "logging_dir", "run_name", "config", "hub_model_id", "resume_from_checkpoint")


@dataclass(frozen=True)
class RunFolder:
    """A run, as far as its folder tells of it."""

    folder: Path
    name: str
    """Unique among the runs of a report."""
    state: Mapping[str, Any]
    """Of the Trainer, where the run got furthest; empty if nothing was saved."""
    saved_args: Mapping[str, Any]
    """Of `training_args.bin`; empty if there is none."""
    saved_as: str
    """The name of the arguments' class."""
    sessions: list[dict[str, Any]]
    """Of `run.json`: one for the start, and one for each resume; empty if there is none."""

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> RunFolder:
        """Read a run's folder.

        Raises:
            ValueError: It is none, or a file in it is damaged.
        """
        states = [*folder.glob("checkpoint-*/trainer_state.json"), folder / "trainer_state.json"]
        # An empty one is of a run that was killed while it wrote it.
        found = [(path, read_json(path)) for path in states if path.is_file() and path.stat().st_size]
        if not found and not (folder / LEARNING_RATES).is_file():
            raise ValueError(
                f"`--runs` must be folders of runs, the `output_dir` of a Trainer, received {str(folder)!r}: it has no "
                f"trainer_state.json, no checkpoint with one and no {LEARNING_RATES}"
            )
        found.sort(key=lambda one: (one[1].get("global_step", 0), one[0].parent == folder))
        places = [folder, *(path.parent for path, _ in reversed(found))]
        saved = next((path for place in places if (path := place / "training_args.bin").is_file()), None)
        args = read_pickle(saved) if saved else None
        return cls(
            folder,
            name or folder.resolve().name,
            found[-1][1] if found else {},
            vars(args) if args else {},
            type(args).__name__,
            read_provenance(folder / RUN),
        )

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, in order."""
        return [row for row in self.state.get("log_history", []) if "step" in row]

    def logged(self, key: str) -> tuple[Array, Array]:
        """The optimizer steps (from 0) at which a number was logged, and the numbers; both empty if it never was."""
        rows = [(row["step"] - 1, row[key]) for row in self.history if _is_number(row.get(key))]
        steps, values = np.array(rows, dtype=np.float64).reshape(-1, 2).T
        return steps, values

    @cached_property
    def keys(self) -> list[str]:
        """The names of the numbers that were logged."""
        return list(dict.fromkeys(key for row in self.history for key, value in row.items() if _is_number(value)))

    @property
    def rewards(self) -> list[str]:
        """The keys of the parts of the reward."""
        return [key for key in self.keys if key.startswith("rewards/") and key.endswith("/mean")]

    @property
    def is_rl(self) -> bool:
        """Whether it was trained on rewards."""
        return "reward" in self.keys

    @property
    def steps_made(self) -> int:
        """As far as the folder tells: the log of learning rates goes on behind the last checkpoint."""
        logged = self.audit.record.steps_made if isinstance(self.audit, AuditReport) else 0
        return max(int(self.state.get("global_step", 0)), logged)

    @property
    def steps_planned(self) -> int | None:
        """The length of the run, where known."""
        if isinstance(self.audit, AuditReport):
            return self.audit.record.plans[-1].total
        return int(self.state.get("max_steps") or 0) or None

    @cached_property
    def audit(self) -> AuditReport | str:
        """The learning rates that were requested and those it trained with; or why that cannot be told."""
        try:
            return audit(self.folder)
        except (ValueError, KeyError) as error:
            return str(error)

    @property
    def resumes(self) -> list[int]:
        """The optimizer steps at which it was resumed, as far as the folder tells."""
        steps = {session["step"] for session in self.sessions if session["step"]}
        # Otherwise the audit only knows the checkpoints, at which it may have been.
        if isinstance(self.audit, AuditReport) and self.audit.record.source == LEARNING_RATES:
            steps |= set(self.audit.record.resumes)
        return sorted(steps)

    @property
    def requested(self) -> dict[str, Any]:
        """The arguments it was given, or, where they were not written down, those of the Trainer that say something."""
        if self.sessions:
            return dict(self.sessions[-1].get("arguments") or {})
        usual = _defaults(self.saved_as)
        empty: tuple[Any, ...] = (None, False, "", [], {})
        return {key: value for key, value in self.settings.items() if value not in (*empty, usual.get(key))}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The Trainer's arguments, given or not, and what else was given."""
        plain = {key: _plain(value) for key, value in self.saved_args.items() if not key.startswith(("_", "hf_deeps"))}
        settings = {key: value for key, value in plain.items() if not isinstance(value, Inert)}
        return dict(hide(settings))

    @property
    def comparable(self) -> dict[str, Any]:
        """What can tell one run from another: all settings, but for names and places."""
        given = self.sessions[-1].get("arguments") or {} if self.sessions else {}
        return {key: value for key, value in {**given, **self.settings}.items() if key not in NOT_HOW}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The results of the run's own evaluation; empty if there are none."""
        path = self.folder / "evaluation.json"
        return read_evaluation(path) if path.is_file() else {}

    def result(self, results: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an evaluation, its own or another one, says of this run's model."""
        for model, result in {**self.evaluation, **results}.items():
            if Path(model).resolve() == self.folder.resolve():
                return dict(result)
        return None


def read_evaluation(path: Path) -> dict[str, Any]:
    """What evaluation.py wrote.

    Raises:
        ValueError: It did not write this.
    """
    try:
        results = read_json(path)
    except OSError as error:
        raise ValueError(
            f"`--evaluation` must be what evaluation.py wrote, received {str(path)!r}: {error.strerror}"
        ) from None
    for result in results.values():
        if not isinstance(result, dict) or not {"exact_match", "interval", "completions"} <= result.keys():
            raise ValueError(f"{path} is not what this version of evaluation.py writes: run it again, it costs nothing")
    return results


def load_runs(folders: list[Path]) -> list[RunFolder]:
    """Read the folders of runs; where two have one name, their parents' are put before it."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError("`--runs` must be different folders, received one of them twice")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = ["/".join(part for part in path.parts[-depth:] if part != "/") for path in paths]
    return [RunFolder.load(folder, name) for folder, name in zip(folders, names, strict=True)]


def _defaults(name: str) -> dict[str, Any]:
    """Those of a class of arguments of TRL or transformers, else of the Trainer's."""
    found = next((made for package in (trl, transformers) if (made := getattr(package, name, None))), None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        found = transformers.TrainingArguments
    return {field.name: getattr(field.default, "value", field.default) for field in dataclasses.fields(found)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    """A value of a pickle: what a member of an enumeration stands for, and of a mapping the values likewise."""
    if isinstance(value, Inert):
        made_of = value.__dict__.get("made_of", ())
        simple = len(made_of) == 1 and isinstance(made_of[0], (str, int, float))
        return made_of[0] if simple else value
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [str(one) if isinstance(one, Inert) else one for one in value]
    try:
        json.dumps(value)
    except TypeError:
        return str(value)
    return value
