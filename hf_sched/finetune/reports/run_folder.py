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
from hf_sched.audit.safe_pickle import Inert, read_pickle
from hf_sched.finetune.provenance import hide, read_provenance
from hf_sched.schedules.validation import ArgumentError

Array = npt.NDArray[np.float64]
Curve = tuple[Array, Array]
"""Optimizer steps from 0, and values at these steps."""


@dataclass(frozen=True)
class RunFolder:
    """A run, as far as its folder describes it."""

    folder: Path
    name: str
    """Unique among the runs of a report."""
    state: Mapping[str, Any]
    """The latest state of the Trainer; empty if none was saved."""
    settings: Mapping[str, Any]
    """The Trainer's arguments in `training_args.bin`, without secrets."""
    sessions: list[dict[str, Any]]
    """The entries of `run.json`, one for the start and one for each resume."""

    @classmethod
    def load(cls, folder: Path, name: str | None = None) -> RunFolder:
        """Read a run's folder.

        Raises:
            ValueError: The folder holds no run, or a file in it is damaged.
        """
        places = [folder, *sorted(folder.glob("checkpoint-*"), key=_number, reverse=True)]
        paths = [path for place in places if (path := place / "trainer_state.json").is_file()]
        if not paths and not (folder / LEARNING_RATES).is_file():
            rule = f"has no trainer_state.json, no checkpoint with one and no {LEARNING_RATES}"
            raise ArgumentError(str(folder), rule=rule, hint="give the `output_dir` of a Trainer")
        # Those of the run and of its newest checkpoint. A process that was killed while it wrote one leaves it empty.
        states = [read_json(path) for path in [path for path in paths if path.stat().st_size][:2]]
        saved = next((path for place in places if (path := place / "training_args.bin").is_file()), None)
        args = vars(read_pickle(saved)) if saved else {}
        plain = {key: _plain(value) for key, value in args.items() if not key.startswith(("_", "hf_deeps"))}
        return cls(
            folder,
            name or folder.resolve().name,
            max(states, key=lambda state: state.get("global_step", 0), default={}),
            hide({key: value for key, value in plain.items() if not isinstance(value, Inert)}),
            read_provenance(folder / RUN),
        )

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Every logged number."""
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

    @property
    def rewards(self) -> list[str]:
        """The keys of the parts of the reward, if there are several."""
        parts = [key for key in self.curves if key.startswith("rewards/") and key.endswith("/mean")]
        return parts if len(parts) > 1 else []

    @cached_property
    def audit(self) -> AuditReport | str:
        """Planned and actual learning rates; or the reason why they cannot be compared."""
        try:
            return audit(self.folder)
        except (ValueError, KeyError) as error:
            return str(error)

    @property
    def steps(self) -> tuple[int, int]:
        """The last known step, and the length of the run (0 if it is not known)."""
        if isinstance(self.audit, AuditReport):  # the log also holds steps after the last checkpoint
            return self.audit.record.steps_made, self.audit.record.plans[-1].total
        return int(self.state.get("global_step", 0)), int(self.state.get("max_steps") or 0)

    @property
    def resumes(self) -> list[int]:
        """The optimizer steps at which the run was resumed."""
        recorded = self.audit.record.resumes if isinstance(self.audit, AuditReport) else []
        return sorted({*recorded, *(session["step"] for session in self.sessions if session["step"])})

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

    @property
    def versions(self) -> dict[str, Any]:
        """The versions of Python and the libraries in the last session."""
        return {"Python": self.sessions[-1].get("python"), **self.sessions[-1]["versions"]} if self.sessions else {}

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The results of the run's own evaluation, by model; empty if the run has no evaluation."""
        path = self.folder / "evaluation.json"
        return read_evaluation(path) if path.is_file() else {}

    def result(self, results: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of this run's model in `results`, else in its own evaluation."""
        all_results = {**self.evaluation, **results}
        own = (model for model in reversed(all_results) if Path(model).resolve() == self.folder.resolve())
        return next((all_results[model] for model in own), None)


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
        if not isinstance(result, dict) or not {"exact_match", "interval", "measured", "completions"} <= result.keys():
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
    found = re.search(r"-(\d+)$", checkpoint.name)
    return int(found[1]) if found else -1


def _plain(value: Any) -> Any:
    """A value of a pickle as plain data: enum members as their values, other objects as `Inert` or as text."""
    if isinstance(value, Inert):
        made_of = value.__dict__.get("made_of", ())
        return made_of[0] if len(made_of) == 1 and isinstance(made_of[0], (str, int, float)) else value
    return json.loads(json.dumps(value, default=lambda one: str(_plain(one))))
