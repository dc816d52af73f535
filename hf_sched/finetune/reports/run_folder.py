"""Reads what a run left in its folder, finished or not, by a recipe or another Trainer, without running its code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched._run_files import LEARNING_RATES, RUN, read_json, read_trainer_state
from hf_sched.audit import AuditReport, audit
from hf_sched.finetune.provenance import read_provenance
from hf_sched.schedules.validation import ArgumentError

Array = npt.NDArray[np.float64]
Curve = tuple[Array, Array]
"""Optimizer steps from 0, and values at these steps."""
_STATE = "trainer_state.json"


@dataclass(frozen=True)
class RunFolder:
    """A run, as far as its folder describes it."""

    folder: Path
    name: str
    """Unique among the runs of a report."""
    state: Mapping[str, Any]
    """The latest state of the Trainer; empty if none was saved."""
    sessions: list[dict[str, Any]]
    """The entries of `run.json`, one for the start and one for each resume; none if a recipe did not write it."""

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
    results = read_json(path) if path.is_file() else {}
    if not results or not all(isinstance(result, dict) and "completions" in result for result in results.values()):
        raise ArgumentError("--evaluation", "a file that `hf-sched evaluate` wrote", str(path))
    return results


def load_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read the folders of runs. Runs with equal names get the names of their parent folders in front.

    Raises:
        ValueError: A folder is given twice or holds no run, or a file in it is damaged.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ArgumentError("RUN", "different folders", [str(folder) for folder in folders])
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    names = ["/".join(part for part in path.parts[-depth:] if part != "/") for path in paths]
    return [_load(folder, name) for folder, name in zip(folders, names, strict=True)]


def _load(folder: Path, name: str) -> RunFolder:
    paths = [path for path in (folder / _STATE, *folder.glob(f"checkpoint-*/{_STATE}")) if path.is_file()]
    if not paths and not (folder / LEARNING_RATES).is_file():
        rule = f"has no {_STATE}, no checkpoint with one and no {LEARNING_RATES}"
        raise ArgumentError(str(folder), rule=rule, hint="give the `output_dir` of a Trainer")
    # The latest state has the longest history; a process that was killed while it wrote one leaves it empty.
    latest = max(paths, key=lambda path: path.stat().st_size, default=None)
    state = read_trainer_state(latest) if latest and latest.stat().st_size else {}
    return RunFolder(folder, name, state, read_provenance(folder / RUN))
