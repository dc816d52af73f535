"""Reads from a run's folder what was requested and which learning rates were used."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_sched._run_files import COOLDOWN_DONE, LEARNING_RATES, read_json
from hf_sched.audit.pickles import Inert, read_pickle
from hf_sched.audit.planned import Array, Plan, Steps
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.scheduler.checkpoint_state import Saved, read_state
from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import resumed, split_on_resume
from hf_sched.schedules import registry

_ARGUMENTS = "training_args.bin"
_STATE = "trainer_state.json"
_BLOCK = 1 << 18  # bytes of `learning_rates.jsonl` that are read at once


@dataclass(frozen=True)
class Series:
    """The learning rates that were used in the parameter groups of one name and peak."""

    label: str
    group: int
    """The first of the groups."""
    peak: float
    """At the start of the run."""
    steps: Steps
    """Optimizer steps, from 0."""
    rates: Array
    least: Array
    """The smallest rate where the groups' rates differ; otherwise equal to `rates`."""


@dataclass(frozen=True)
class Record:
    """Everything a run left about its learning rates."""

    plans: list[Plan]
    """In the order in which they were in force."""
    series: list[Series]
    source: str
    """The file that holds the rates."""
    steps_made: int
    resumes: list[int]
    """Optimizer steps at which the run was resumed; of a run without `learning_rates.jsonl`, those of checkpoints."""
    notes: list[str]

    def in_force(self, number: int, steps: Steps) -> Any:
        """A mask of the steps at which plan `number` was in force. The first plan covers earlier steps too."""
        stop = self.plans[number + 1].first if number + 1 < len(self.plans) else np.inf
        return (steps < stop) & ((steps >= self.plans[number].first) | (number == 0))

    def peak(self, series: Series, plan: Plan) -> float:
        """The requested peak of the groups. It follows the `learning_rate` of the plan."""
        first = self.plans[0].learning_rate
        return series.peak * plan.learning_rate / first if first else series.peak


def read_run(folder: Path, config: Path | None = None) -> Record:
    """Read the `output_dir` of a Trainer, finished or not, or one of its checkpoints.

    Args:
        folder: The folder.
        config: The run's YAML file, if it is to say what was requested.

    Raises:
        ValueError: The folder holds no run, a file in it is damaged, or nothing in it says what was requested.
    """
    if (folder / LEARNING_RATES).is_file():
        sessions, rows = _read_log(folder / LEARNING_RATES)
        if rows:
            return _from_log(sessions, rows, config)
    states = _states(folder)
    if states:
        return _from_states(states, folder, config)
    if (folder / LEARNING_RATES).is_file():
        raise ValueError(f"{str(folder)!r} records no optimizer step: the run ended before its first")
    raise ValueError(
        f"{str(folder)!r} is not a run: it has no {_STATE}, no checkpoint-*/{_STATE} and no {LEARNING_RATES}; give the "
        "`output_dir` of a Trainer"
    )


_Rows = dict[str, list[Array]]
"""For each label of groups, blocks of shape (3, rows): step (from 1), largest and smallest rate."""


def _read_log(path: Path) -> tuple[list[dict[str, Any]], _Rows]:
    """Read `learning_rates.jsonl` block by block. An incomplete last line, of a killed process, is skipped."""
    sessions: list[dict[str, Any]] = []
    found: _Rows = {}
    kinds: list[str] = []

    def keep(rows: Array, least: Array) -> None:
        for number, kind in enumerate(kinds, start=1):
            found.setdefault(kind, []).append(np.stack([rows[:, 0], rows[:, number], least[:, number]]))

    with path.open("rb") as file:
        while block := file.read(_BLOCK) + file.readline():
            if (numbers := _parse_plain_rows(block, columns=1 + len(kinds))) is not None:
                keep(numbers, numbers)
                continue
            largest: list[list[float]] = []
            smallest: list[list[float]] = []
            for line in [*block.splitlines(), b'{"session": null}']:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if "session" in row:
                    if largest:
                        keep(np.array(largest), np.array(smallest))
                        largest, smallest = [], []
                    if row["session"]:
                        sessions.append(row["session"])
                        kinds = list(row["session"]["kinds"])
                elif kinds and len(row["rates"]) == len(kinds):
                    spans = [rate if isinstance(rate, list) else (rate, rate) for rate in row["rates"]]
                    largest.append([row["step"], *(most for _, most in spans)])
                    smallest.append([row["step"], *(least for least, _ in spans)])
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


def _from_log(sessions: list[dict[str, Any]], rows: _Rows, config: Path | None) -> Record:
    plans = [_plan_of_session(session) for session in sessions]
    if config:
        plans = [_plan_of_config(config, sessions[-1]["num_training_steps"])]
    begun, first = sessions[0]["step"], sessions[0]
    peaks: dict[str, float] = {}
    groups: dict[str, int] = {}
    for session in reversed(sessions):
        peaks.update(zip(session["kinds"], session["peaks"], strict=True))
        groups.update({kind: members[0] for kind, members in session["kinds"].items()})
    if begun:
        # The groups have the checkpoint's peaks then; the requested ones are proportional to `learning_rate`.
        scale = first["learning_rate"] / first["peaks"][0] or 1.0
        peaks.update({kind: peak * scale for kind, peak in zip(first["kinds"], first["peaks"], strict=True)})
    series = []
    for kind in list(rows):
        steps, most, least = np.concatenate(rows.pop(kind), axis=1)  # frees the blocks
        label = kind if len(first["kinds"]) > 1 else "learning_rate"
        series.append(Series(label, groups[kind], peaks[kind], steps.astype(np.int64) - 1, most, least))
    steps_made = max(int(one.steps[-1]) + 1 for one in series)
    resumes = sorted({session["step"] for session in sessions if session["step"] and not session.get("is_cooldown")})
    return Record(plans, series, LEARNING_RATES, steps_made, resumes, _starts_later(begun))


def _starts_later(step: int) -> list[str]:
    return [f"the run started at step {step}, from a checkpoint: earlier steps are not audited"] if step else []


def _plan_of_session(session: dict[str, Any]) -> Plan:
    _, arguments = split_on_resume(session["lr_scheduler_kwargs"])
    return Plan(
        session["lr_scheduler_type"],
        arguments,
        session["num_training_steps"],
        session["num_warmup_steps"],
        session["learning_rate"],
        LEARNING_RATES,
        group_schedule=GroupSchedule.from_state(session["group_schedule"]) if session.get("group_schedule") else None,
        first=session["step"],
        deepspeed=session.get("facts", {}).get("deepspeed"),
    )


def _plan_of_config(path: Path, total: int) -> Plan:
    config = TrainingConfig.read(path)
    return _plan({**config.given, "learning_rate": config.value("learning_rate")}, total, str(path))


def _plan(args: Mapping[str, Any], total: int, source: str) -> Plan:
    """The plan of TrainingArguments, or of a configuration's keys."""
    warmup = float(args.get("warmup_steps") or 0)
    share = warmup if 0 < warmup < 1 else (float(args.get("warmup_ratio") or 0) or None) if not warmup else None
    name = args.get("lr_scheduler_type") or "linear"
    if isinstance(name, Inert):  # a member of transformers' enum
        (name,) = name.__dict__["made_of"]
    kwargs = args.get("lr_scheduler_kwargs")
    _, arguments = split_on_resume(kwargs if isinstance(kwargs, dict) else None)
    deepspeed = getattr(args.get("hf_deepspeed_config"), "config", None) or args.get("deepspeed")
    if isinstance(deepspeed, str) and Path(deepspeed).is_file():
        deepspeed = read_json(Path(deepspeed))
    return Plan(
        str(name),
        arguments,
        total,
        math.ceil(total * share) if share else int(warmup),
        float(args["learning_rate"]),
        source,
        warmup_share=share,
        deepspeed=(deepspeed.get("scheduler") or {}).get("type") if isinstance(deepspeed, dict) else None,
    )


def _states(folder: Path) -> dict[Path, dict[str, Any]]:
    """The Trainer's states of the checkpoints and of the folder itself, ordered by step."""
    # A process that was killed while it wrote the file leaves an empty one.
    paths = [path for path in (*folder.glob(f"checkpoint-*/{_STATE}"), folder / _STATE) if path.is_file()]
    found = {path.parent: read_json(path) for path in paths if path.stat().st_size}
    return dict(sorted(found.items(), key=lambda item: (item[1]["global_step"], item[0] == folder)))


def _from_states(states: dict[Path, dict[str, Any]], folder: Path, config: Path | None) -> Record:
    last = list(states.values())[-1]
    history = _logged_rates(last)
    if not history:
        raise ValueError(
            f"{str(folder)!r} logged no learning rate: train with `logging_steps: 1`, or with hf_sched.LearningRateLog"
        )
    # A checkpoint with another history was left by a run that a later resume replaced.
    own = {place: state for place, state in states.items() if _is_prefix(_logged_rates(state), history)}
    notes: list[str] = []
    plans = [_plan_of_config(config, last["max_steps"])] if config else _plans(own, folder, notes)
    begun = plans[0].first
    kept = {step - 1: rate for step, rate in history.items() if step > begun}
    steps, rates = np.array(list(kept), dtype=np.int64), np.array(list(kept.values()), dtype=np.float64)
    peak = plans[0].group_schedule.peaks[0] if plans[0].group_schedule else plans[0].learning_rate
    series = [Series("learning_rate", 0, peak, steps, rates, rates)]
    resumes = sorted({state["global_step"] for place, state in own.items() if place != folder})
    return Record(plans, series, _STATE, last["global_step"], resumes, [*notes, *_starts_later(begun)])


def _logged_rates(state: dict[str, Any]) -> dict[int, float]:
    return {row["step"]: row["learning_rate"] for row in state.get("log_history", []) if "learning_rate" in row}


def _is_prefix(part: dict[int, float], whole: dict[int, float]) -> bool:
    return list(part.items()) == list(whole.items())[: len(part)]


def _plans(states: dict[Path, dict[str, Any]], folder: Path, notes: list[str]) -> list[Plan]:
    """The plans of the checkpoints and of the run, each in force from the last checkpoint of the plan before."""
    plans: list[Plan] = []
    before: tuple[Plan, Path, int] | None = None
    for place, state in states.items():
        if not (place / _ARGUMENTS).is_file():
            continue
        args = read_pickle(place / _ARGUMENTS)
        where = str((place / _ARGUMENTS).relative_to(folder))
        saved = read_state(read_pickle(place / "scheduler.pt")) if (place / "scheduler.pt").is_file() else None
        recorded = saved.group_schedule if saved else None
        cooled = _cooled(saved, folder, state)
        plan = _plan(vars(args), cooled.requested.num_training_steps if cooled else state["max_steps"], where)
        epochs = state.get("epoch")
        plan = replace(
            plan,
            steps_per_epoch=round(state["global_step"] / epochs) or None if epochs else None,
            first=before[2] if before else _branched_at(args, folder),
        )
        is_kept = bool((getattr(args, "lr_scheduler_kwargs", None) or {}).get("on_resume"))
        if cooled is not None:
            plan = replace(plan, total=state["max_steps"], group_schedule=cooled)
        elif recorded is not None and (plan.name not in registry.BUILTIN_NAMES or is_kept):
            plan = replace(plan, group_schedule=recorded, source=where.replace(_ARGUMENTS, "scheduler.pt"))
        elif before and before[0].group_schedule is not None and plan.name in registry.available():
            plan = _after(before, plan, args)
        if before is None or plan != before[0] or plan.group_schedule != before[0].group_schedule:
            plans.append(plan)
        before = (plan, place, state["global_step"])
    if not plans:
        raise ValueError(
            f"nothing in {str(folder)!r} says what was requested (no {_ARGUMENTS}, no {LEARNING_RATES}): give the YAML "
            "file of the run with --config"
        )
    transition = plans[0].group_schedule.transition if plans[0].group_schedule else None
    if transition is not None:
        notes.append(
            f"the run was resumed at step {transition.step} with another schedule, and no earlier checkpoint is left: "
            "the steps before are compared with the new schedule"
        )
    return plans


def _cooled(saved: Saved | None, folder: Path, state: Mapping[str, Any]) -> GroupSchedule | None:
    """The schedule after a live cooldown request: from a checkpoint, else from the file that reports its end."""
    group_schedule = saved.group_schedule if saved else None
    if saved is None and (folder / COOLDOWN_DONE).is_file():
        group_schedule = GroupSchedule.from_state(read_json(folder / COOLDOWN_DONE)["group_schedule"])
        if group_schedule.cooldown and group_schedule.cooldown.end != state["max_steps"]:
            return None
    return group_schedule if group_schedule and group_schedule.cooldown else None


def _branched_at(args: Any, folder: Path) -> int:
    """The step of the checkpoint of another run from which this run started; 0 if it started from scratch."""
    checkpoint = getattr(args, "resume_from_checkpoint", None)
    if not isinstance(checkpoint, str) or Path(checkpoint).absolute().parent == folder.absolute():
        return 0
    step = re.fullmatch(r"checkpoint-(\d+)", Path(checkpoint).name)
    return int(step[1]) if step else 0


def _after(before: tuple[Plan, Path, int], plan: Plan, args: Any) -> Plan:
    """The plan of the end of a run, which no checkpoint holds: the previous one, or what a resume made of it."""
    last, place, _ = before
    assert last.group_schedule is not None
    if plan == last:
        return replace(last, first=plan.first)
    on_resume, _ = split_on_resume(vars(args).get("lr_scheduler_kwargs"))
    peaks = tuple(peak * plan.learning_rate / last.learning_rate for peak in last.group_schedule.peaks)
    requested = GroupSchedule(plan.schedule or last.group_schedule.schedule, peaks)
    saved = read_state(read_pickle(place / "scheduler.pt"))
    return replace(plan, group_schedule=resumed(saved, requested, plan.name, on_resume))
