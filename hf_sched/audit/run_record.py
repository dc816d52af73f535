"""Reads from a run's folder what was requested and which learning rates were used.

`learning_rates.jsonl` (`LearningRateLog`) has everything: every step, every parameter group, every resume and live
cooldown. Without it, `trainer_state.json` and `training_args.bin` have group 0 of a run under a single plan.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched._run_files import (
    COOLDOWN_DONE,
    LEARNING_RATES,
    explain_damage,
    read_learning_rates_row,
    read_trainer_state,
)
from hf_sched.audit.planned import Array, Plan, Steps, planned_rates
from hf_sched.audit.safe_pickle import Inert, read_pickle
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.hyperparameters import Rest
from hf_sched.scheduler.resume import split_on_resume
from hf_sched.schedules import registry, schedule_text
from hf_sched.schedules.validation import NO_UNITS, StepUnits

_ARGUMENTS = "training_args.bin"
_STATE = "trainer_state.json"
# A share of the peak. Two ways to compute one formula differ by about 1e-16 of it.
_TOLERANCE = 1e-9
_BLOCK = 1 << 18  # bytes of `learning_rates.jsonl` that are read at once


@dataclass(frozen=True)
class Comparison:
    """Planned and actual learning rates of the parameter groups of one name and peak, or values of a hyperparameter."""

    label: str
    group: int
    """The first of the groups."""
    peak: float
    """At the start of the run."""
    steps: Steps
    """The optimizer steps, from 0, whose rates are known."""
    planned: Array
    """NaN where the plan has no rate."""
    actual: Array
    is_hyperparameter: bool = False

    @cached_property
    def differences(self) -> Array:
        """The absolute differences; 0 where the plan has no rate."""
        return np.nan_to_num(np.abs(self.actual - self.planned))

    @cached_property
    def is_off(self) -> npt.NDArray[np.bool_]:
        """Which steps are off the plan."""
        highest = float(np.nanmax(np.abs(np.append(self.planned, 0.0))))
        return self.differences > _TOLERANCE * highest


@dataclass(frozen=True)
class Record:
    """Everything a run left about its learning rates."""

    plans: list[Plan]
    """In the order in which they were in force."""
    comparisons: list[Comparison]
    source: str
    """The file that holds the rates."""
    steps_made: int
    resumes: list[int]
    """Optimizer steps at which the run was resumed, as far as `learning_rates.jsonl` records them."""


def read_run(folder: Path, config: Path | None = None) -> Record:
    """Read the `output_dir` of a Trainer, or one of its checkpoints; see `audit`."""
    log = folder / LEARNING_RATES
    with explain_damage(log):
        sessions, rows = _read_log(log) if log.is_file() else ([], {})
        if rows:
            return _from_log(sessions, rows, config)
    paths = [path for path in (*folder.glob(f"checkpoint-*/{_STATE}"), folder / _STATE) if path.is_file()]
    # A process that was killed while it wrote the state leaves an empty file.
    if states := {path.parent: read_trainer_state(path) for path in paths if path.stat().st_size}:
        with explain_damage(folder):
            return _from_states(states, folder, config)
    raise ValueError(
        f"{str(folder)!r} is not a run: it has no {_STATE}, no checkpoint-*/{_STATE} and no {LEARNING_RATES} with a "
        "step; give the `output_dir` of a Trainer"
    )


def _read_log(path: Path) -> tuple[list[dict[str, Any]], Mapping[str, array[float]]]:
    """The sessions, and for each kind of groups, one row after the other: step (from 1), largest and smallest rate."""
    sessions: list[dict[str, Any]] = []
    found: dict[str, array[float]] = defaultdict(lambda: array("d"))
    kinds: list[str] = []
    with path.open("rb") as file:
        while block := file.read(_BLOCK) + file.readline():
            if (numbers := _parse_plain_rows(block, columns=1 + len(kinds))) is not None:
                for column, kind in enumerate(kinds, start=1):
                    found[kind].frombytes(numbers[:, [0, column, column]].tobytes())
                continue
            for line in block.splitlines():
                row = read_learning_rates_row(line)
                if row is None:
                    continue
                if "session" in row:
                    sessions.append(row["session"])
                    kinds = [*row["session"]["kinds"], *row["session"].get("hyperparameters", ())]
                elif len(row["rates"]) == len(kinds):
                    for kind, rate in zip(kinds, row["rates"], strict=True):
                        least, most = rate if isinstance(rate, list) else (rate, rate)
                        found[kind].extend((row["step"], most, least))
    return sessions, found


def _parse_plain_rows(block: bytes, columns: int) -> Array | None:
    """Parse rows of one number for each kind of groups, about ten times as fast as `json`.

    Returns:
        Float64 of shape (rows, columns); None if the block holds anything else.
    """
    text = block.replace(b" ", b"").replace(b'{"step":', b"").replace(b',"rates":[', b" ").replace(b"]}", b"")
    text = text.replace(b",", b" ")
    if text.translate(None, b"0123456789.e+- \n") or not text.endswith(b"\n"):
        return None
    numbers = np.fromstring(text, dtype=np.float64, sep=" ")
    return numbers.reshape(-1, columns) if len(numbers) == columns * text.count(b"\n") else None


def _from_log(sessions: list[dict[str, Any]], rows: Mapping[str, array[float]], config: Path | None) -> Record:
    first = sessions[0]
    plans = [_plan_of_session(session) for session in sessions]
    if config:
        plans = [replace(_plan_of_config(config, plans[-1].total), first=first["step"])]
    peaks: dict[str, float] = {}
    groups = {kind: members[0] for session in reversed(sessions) for kind, members in session["kinds"].items()}
    for session in reversed(sessions):
        peaks.update(zip(session["kinds"], session["peaks"], strict=True))
    if first["step"]:
        # The groups have the checkpoint's peaks then; the requested ones are proportional to `learning_rate`.
        scale = first["learning_rate"] / next(filter(None, first["peaks"]), 1.0) or 1.0
        peaks.update({kind: peak * scale for kind, peak in zip(first["kinds"], first["peaks"], strict=True)})
    compared = []
    for kind, numbers in rows.items():
        steps, most, least = np.frombuffer(numbers).reshape(-1, 3).T
        steps = steps.astype(np.int64) - 1
        if kind not in groups:
            values = _planned_values(sessions, kind, steps)
            compared.append(Comparison(kind, 0, 0.0, steps, values, most, is_hyperparameter=True))
            continue
        planned = planned_rates(plans, steps, groups[kind], peaks[kind])
        actual = np.where(np.abs(least - planned) > np.abs(most - planned), least, most)  # the farther one
        label = kind if len(groups) > 1 else "learning_rate"
        compared.append(Comparison(label, groups[kind], peaks[kind], steps, planned, actual))
    resumes = sorted({session["step"] for session in sessions if session["step"] and not session.get("is_change")})
    return Record(plans, compared, LEARNING_RATES, max(int(one.steps[-1]) + 1 for one in compared), resumes)


def _planned_values(sessions: list[dict[str, Any]], kind: str, steps: Steps) -> Array:
    """The values of a hyperparameter under the schedules in force, each from its session on."""
    planned = np.full(len(steps), np.nan)
    for session in sessions:
        if state := session.get("hyperparameters", {}).get(kind):
            here = steps >= session["step"]
            schedule = GroupSchedule.from_state(state)
            curve = schedule.rates(0, schedule.schedule.num_training_steps or int(steps.max()) + 1).max(axis=0)
            positions = steps[here]
            if state["rest"]:
                positions = Rest(*state["rest"]).position_at(positions, len(curve))
            planned[here] = curve[positions.clip(max=len(curve) - 1)]
    return planned


def _plan_of_session(session: dict[str, Any]) -> Plan:
    return Plan(
        session["lr_scheduler_type"],
        split_on_resume(session["lr_scheduler_kwargs"])[1],
        session["num_training_steps"],
        session["num_warmup_steps"],
        session["learning_rate"],
        LEARNING_RATES,
        first=session["step"],
        group_schedule=GroupSchedule.from_state(session["group_schedule"]) if session.get("group_schedule") else None,
    )


def _from_states(states: dict[Path, dict[str, Any]], folder: Path, config: Path | None) -> Record:
    last = max(states, key=lambda place: (states[place]["global_step"], place == folder))
    state = states[last]  # holds the history of the whole run
    history = {row["step"] - 1: row["learning_rate"] for row in state["log_history"] if "learning_rate" in row}
    if not history:
        raise ValueError(
            f"{str(folder)!r} logged no learning rate: train with `logging_steps: 1`, or with hf_sched.LearningRateLog"
        )
    plan = _plan_of_config(config, state["max_steps"]) if config else _plan_of_arguments(states, state, folder)
    steps, rates = np.array(list(history), dtype=np.int64), np.array(list(history.values()), dtype=np.float64)
    planned = planned_rates([plan], steps, 0, plan.learning_rate)
    compared = Comparison("learning_rate", 0, plan.learning_rate, steps, planned, rates)
    return Record([plan], [compared], _STATE, state["global_step"], [])


def _plan_of_arguments(states: dict[Path, dict[str, Any]], last: dict[str, Any], folder: Path) -> Plan:
    """The plan in `training_args.bin`, if it was in force for the whole run."""
    saved: dict[Path, dict[str, Any]] = {}
    for place in states:
        if (path := place / _ARGUMENTS).is_file():
            with explain_damage(path):
                saved[place] = vars(read_pickle(path))
    if not saved:
        raise ValueError(
            f"nothing in {str(folder)!r} says what was requested (no {_ARGUMENTS}, no {LEARNING_RATES}): give the YAML "
            "file of the run with --config"
        )
    units = StepUnits(round(last["global_step"] / last["epoch"]) or None if last.get("epoch") else None)
    plans = [_plan(args, states[place]["max_steps"], _ARGUMENTS, units) for place, args in saved.items()]
    has_changed = any(plan != plans[-1] for plan in plans) or (folder / COOLDOWN_DONE).is_file()
    if has_changed or any(_is_resumed(args, folder) for args in saved.values()):
        raise ValueError(
            f"the plan of {str(folder)!r} changed at a resume or a live cooldown, and only {LEARNING_RATES} records "
            "such changes: train with hf_sched.LearningRateLog"
        )
    return plans[-1]


def _is_resumed(args: Mapping[str, Any], folder: Path) -> bool:
    """Whether a run continued a checkpoint of another one, or may have continued its own under another schedule."""
    checkpoint, here = args.get("resume_from_checkpoint"), folder.absolute()
    is_branch = isinstance(checkpoint, str) and Path(checkpoint).absolute().parent not in (here, here.parent)
    return is_branch or "on_resume" in _schedule_of(args)[1]


def _plan_of_config(path: Path, total: int) -> Plan:
    config = TrainingConfig.read(path)
    return _plan({**config.given, "learning_rate": config.value("learning_rate")}, total, str(path))


def _plan(args: Mapping[str, Any], total: int, source: str, units: StepUnits = NO_UNITS) -> Plan:
    """The plan of TrainingArguments, or of a configuration's keys."""
    warmup = float(args.get("warmup_steps") or args.get("warmup_ratio") or 0)
    name, arguments = _schedule_of(args)
    arguments = split_on_resume(arguments)[1]
    length = registry.length_of(name, arguments, total, units) or total
    return Plan(
        name,
        arguments,
        total,
        math.ceil(length * warmup) if warmup < 1 else int(warmup),
        float(args["learning_rate"]),
        source,
        units=units,
    )


def _schedule_of(args: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    text = args.get("lr_scheduler_type") or "linear"
    if isinstance(text, Inert):  # a member of transformers' enum
        (text,) = text.__dict__["made_of"]
    return schedule_text.read(text, args.get("lr_scheduler_kwargs"))
