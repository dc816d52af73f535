"""What a run was to train on, and what it did train on, from what it left in its folder (`run_record`)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_sched._run_files import COOLDOWN_DONE, LEARNING_RATES, read_json, read_learning_rates
from hf_sched.audit.run_record import Inert, read_pickle
from hf_sched.integrations.builtin_schedules import BUILTIN, multiplier, parameters
from hf_sched.plan.training_config import RunConfig
from hf_sched.scheduler.checkpoint_state import read_state
from hf_sched.scheduler.group_schedule import Cooldown, GroupSchedule
from hf_sched.scheduler.resume import Saved, resumed, split_on_resume
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule

Array = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]
_ARGUMENTS = "training_args.bin"
_FEW = 16


@dataclass(frozen=True)
class Plan:
    """What was requested, from a step on."""

    name: str
    """`lr_scheduler_type`."""
    arguments: Mapping[str, Any]
    """`lr_scheduler_kwargs`, without `on_resume`."""
    total: int
    warmup: int
    learning_rate: float
    known_from: str
    group_schedule: GroupSchedule | None = field(default=None, compare=False)
    """Of one of our schedules, if it was written down: with joints and epochs."""
    first: int = field(default=0, compare=False)
    """The optimizer step, from 0, from which on it is in force."""
    warmup_share: float | None = field(default=None, compare=False)
    """If the warmup was requested as a share of the run."""
    steps_per_epoch: float | None = field(default=None, compare=False)
    """Where known."""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What may explain a deviation: `accumulation`, `deepspeed` (its scheduler), `scheduler` (the class in force)."""

    def same(self, other: Plan) -> bool:
        """Whether the same was requested, wherever it is known from."""
        return replace(self, known_from="") == replace(other, known_from="")

    def rates(self, steps: npt.ArrayLike, *, group: int = 0, peak: float | None = None) -> Array | None:
        """The learning rates at optimizer steps (from 0; NaN before, and past the end as the schedule goes on there).

        Args:
            steps: Of any number, in any order.
            group: The parameter group.
            peak: Its peak, if it is not `learning_rate`.

        Returns:
            Array: Float64, one a step; None if the schedule follows a metric.

        Raises:
            ValueError: The schedule cannot be made.
        """
        requested = np.asarray(steps, dtype=np.int64)
        peak = self.learning_rate if peak is None else peak
        inside = np.maximum(requested, 0)
        rates: Array
        if self.group_schedule is not None:
            group = group if group < len(self.group_schedule.peaks) else 0
            group_schedule, one = self.group_schedule, slice(group, group + 1)
            rates = _pick(lambda first, stop: group_schedule.rates(first, stop, one)[0], inside)
        elif (schedule := self.schedule) is not None:
            curve, peaks, floors = schedule, np.array([peak]), np.array([schedule.floor(peak)])
            rates = _pick(lambda first, stop: curve.rates(first, stop, peaks, floors)[0], inside)
        else:
            if self.name not in BUILTIN:
                raise ValueError(
                    f"{registry.unknown_name(self.name)} If it is your own, audit in Python, where it is registered"
                )
            arguments = self.arguments if parameters(self.name) else {}  # transformers ignores them then
            multiply = multiplier(
                self.name,
                num_training_steps=self.total,
                num_warmup_steps=self.warmup,
                peak=self.learning_rate,
                **arguments,
            )
            if multiply is None:
                return None
            rates = np.array([peak * multiply(step) for step in inside.ravel().tolist()]).reshape(inside.shape)
        return np.where(requested < 0, np.nan, rates)

    @cached_property
    def schedule(self) -> Schedule | None:
        """The curve, if it is one of ours."""
        if self.group_schedule is not None:
            return self.group_schedule.schedule
        if self.name not in registry.available():
            return None
        return registry.entry(self.name).build(self.total, self.warmup, dict(self.arguments), self.steps_per_epoch)

    @property
    def cooldown(self) -> Cooldown | None:
        """What the run was told while it ran."""
        return self.group_schedule.cooldown if self.group_schedule else None

    def with_total(self, total: int) -> Plan:
        """The same requested in a run of another length."""
        warmup = self.warmup if self.warmup_share is None else math.ceil(total * self.warmup_share)
        return replace(self, total=total, warmup=warmup, group_schedule=None)

    def __str__(self) -> str:
        arguments = f" {dict(self.arguments)}" if self.arguments else ""
        told = f", {self.cooldown}" if self.cooldown else ""
        return (
            f"{self.name}{arguments}, {self.total} steps, {self.warmup} of them warmup, learning rate "
            f"{self.learning_rate:.6g}{told}"
        )


@dataclass(frozen=True)
class Series:
    """The learning rates that a kind of parameter groups had."""

    label: str
    group: int
    """The first of them."""
    peak: float
    """As the run began."""
    steps: Steps
    """Optimizer steps, from 0."""
    rates: Array
    least: Array
    """Where the groups' rates differ, the least of them; else as `rates`."""


@dataclass(frozen=True)
class Record:
    """What a run left behind."""

    plans: list[Plan]
    """In the order in which they were in force; the first from step 0 on."""
    series: list[Series]
    source: str
    steps_made: int
    resumes: list[int]
    """The optimizer steps at which the run was resumed, or may have been: there is a checkpoint."""
    notes: list[str]

    def plan_at(self, step: int) -> Plan:
        """The plan in force at a step."""
        return [plan for plan in self.plans if plan.first <= step or plan is self.plans[0]][-1]

    def peak(self, series: Series, plan: Plan) -> float:
        """What was requested as the groups' peak: a resume with another `learning_rate` asks for another one."""
        first = self.plans[0].learning_rate
        return series.peak * plan.learning_rate / first if first else series.peak


def _pick(rates: Callable[[int, int], Array], steps: Steps) -> Array:
    """The rates at some steps, of a curve that is given from one step to another."""
    if len(steps) > _FEW:
        return rates(0, int(steps.max()) + 1)[steps]
    return np.array([rates(step, step + 1)[0] for step in steps.tolist()], dtype=np.float64)


def read_run(folder: Path, config: Path | None = None) -> Record:
    """Read a run's folder, or a checkpoint's.

    Args:
        folder: The `output_dir` of a Trainer, finished or not, or one of its checkpoints.
        config: The YAML file that it was started with, if that is to say what was requested.

    Raises:
        ValueError: It is no such folder, or nothing in it says what was requested.
    """
    states = _states(folder)
    if not states and not (folder / LEARNING_RATES).is_file():
        raise ValueError(
            f"{str(folder)!r} is no run: it has no trainer_state.json, no checkpoint-*/trainer_state.json and no "
            f"{LEARNING_RATES}. Give the `output_dir` of a Trainer"
        )
    rows = read_learning_rates(folder / LEARNING_RATES) if (folder / LEARNING_RATES).is_file() else []
    if "session" in next(iter(rows), {}) and any("rates" in row for row in rows):
        return _from_log(rows, states, folder, config)
    if not states:
        raise ValueError(f"{str(folder)!r} says of no step what it trained with: the run ended before its first")
    return _from_states(states, folder, config)


def _from_log(
    rows: list[dict[str, Any]], states: dict[Path, dict[str, Any]], folder: Path, config: Path | None
) -> Record:
    sessions = [row["session"] for row in rows if "session" in row]
    plans = [_plan_of_session(session) for session in sessions]
    if config:
        plans = [_plan_of_config(config, sessions[-1]["num_training_steps"])]
    found: dict[str, list[tuple[int, float, float]]] = {}
    kinds: list[str] = []
    for row in rows:
        if "session" in row:
            kinds = list(row["session"]["kinds"])
        elif len(row["rates"]) == len(kinds):
            for kind, rate in zip(kinds, row["rates"], strict=True):
                least, most = rate if isinstance(rate, list) else (rate, rate)
                found.setdefault(kind, []).append((row["step"] - 1, most, least))
    first = sessions[0]
    peaks = {kind: peak for session in reversed(sessions) for kind, peak in zip(session["kinds"], session["peaks"])}  # noqa: B905
    groups = {kind: members[0] for session in sessions for kind, members in session["kinds"].items()}
    series = []
    for kind, made in found.items():
        steps, most, least = np.array(made, dtype=np.float64).T
        label = kind if len(first["kinds"]) > 1 else "learning_rate"
        series.append(Series(label, groups[kind], peaks[kind], steps.astype(np.int64), most, least))
    steps_made = max(int(one.steps[-1]) + 1 for one in series)
    resumes = sorted({session["step"] for session in sessions if session["step"] and not session.get("told")})
    if first["step"]:
        # The groups' peaks are the checkpoint's then; what was requested is known of the first.
        requested = [peak * (first["learning_rate"] / first["peaks"][0] or 1.0) for peak in first["peaks"]]
        series = [replace(one, peak=requested[number]) for number, one in enumerate(series)]
    return Record(plans, series, LEARNING_RATES, steps_made, resumes, _elsewhere(first["step"]))


def _elsewhere(step: int) -> list[str]:
    return [f"the run began at step {step}, from a checkpoint: what was before is not judged"] if step else []


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
        facts={"scheduler": session.get("scheduler"), **session.get("facts", {})},
    )


def _plan_of_config(path: Path, total: int) -> Plan:
    config = RunConfig.read(path)
    return _plan({**config.given, "learning_rate": config.value("learning_rate")}, total, str(path))


def _plan(args: Mapping[str, Any], total: int, known_from: str) -> Plan:
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
        known_from,
        warmup_share=share,
        facts={
            "accumulation": args.get("gradient_accumulation_steps"),
            "deepspeed": (deepspeed.get("scheduler") or {}).get("type") if isinstance(deepspeed, dict) else None,
        },
    )


def _states(folder: Path) -> dict[Path, dict[str, Any]]:
    """The folder's state and those of its checkpoints, the furthest last."""
    places = [*folder.glob("checkpoint-*"), folder]
    found = {place: read_json(place / "trainer_state.json") for place in places if _has_state(place)}
    return dict(sorted(found.items(), key=lambda item: (item[1]["global_step"], item[0] == folder)))


def _has_state(place: Path) -> bool:
    path = place / "trainer_state.json"
    return path.is_file() and path.stat().st_size > 0


def _from_states(states: dict[Path, dict[str, Any]], folder: Path, config: Path | None) -> Record:
    last = list(states.values())[-1]
    history = _rates(last)
    if not history:
        raise ValueError(
            f"{str(folder)!r} logged no learning rate: train with `logging_steps: 1`, or with hf_sched.LearningRateLog"
        )
    # A checkpoint that a resume from an earlier one left behind is of another past.
    own = {place: state for place, state in states.items() if _rates(state) == history[: len(_rates(state))]}
    notes: list[str] = []
    plans = [_plan_of_config(config, last["max_steps"])] if config else _plans(own, folder, notes)
    steps = np.array([step - 1 for step, _ in history], dtype=np.int64)
    rates = np.array([rate for _, rate in history], dtype=np.float64)
    begun = plans[0].first
    notes += _elsewhere(begun)
    steps, rates = steps[steps >= begun], rates[steps >= begun]
    peak = plans[0].learning_rate
    if plans[0].group_schedule is not None:
        peak = plans[0].group_schedule.peaks[0]
    series = [Series("learning_rate", 0, peak, steps, rates, rates)]
    resumes = sorted({state["global_step"] for place, state in own.items() if place != folder})
    return Record(plans, series, "trainer_state.json", last["global_step"], resumes, notes)


def _rates(state: dict[str, Any]) -> list[tuple[int, float]]:
    rows = {row["step"]: row["learning_rate"] for row in state.get("log_history", []) if "learning_rate" in row}
    return list(rows.items())


def _plans(states: dict[Path, dict[str, Any]], folder: Path, notes: list[str]) -> list[Plan]:
    """The plans of the checkpoints and of the run, each in force since the last checkpoint of the one before."""
    plans: list[Plan] = []
    before: tuple[Plan, Path, int] | None = None
    for place, state in states.items():
        if not (place / _ARGUMENTS).is_file():
            continue
        args = read_pickle(place / _ARGUMENTS)
        where = str((place / _ARGUMENTS).relative_to(folder))
        saved = read_state(read_pickle(place / "scheduler.pt")) if (place / "scheduler.pt").is_file() else None
        told = _told(saved, folder, state)
        plan = _plan(vars(args), told.requested.num_training_steps if told else state["max_steps"], where)
        if told is not None:
            plan = replace(plan, total=state["max_steps"], group_schedule=told)
        if state.get("epoch"):
            plan = replace(plan, steps_per_epoch=round(state["global_step"] / state["epoch"]) or None)
        if before is None:
            plan = replace(plan, first=_branched_at(args, folder))
        kept = bool((getattr(args, "lr_scheduler_kwargs", None) or {}).get("on_resume"))
        if saved is not None and saved.group_schedule is not None and (plan.name not in BUILTIN or kept):
            plan = replace(
                plan, group_schedule=saved.group_schedule, known_from=where.replace(_ARGUMENTS, "scheduler.pt")
            )
        if before is not None:
            plan = replace(plan, first=before[2])
            if (
                plan.group_schedule is None
                and plan.name in registry.available()
                and before[0].group_schedule is not None
            ):
                plan = _after(before, plan, args)
        if before is None or not plan.same(before[0]) or plan.group_schedule != before[0].group_schedule:
            plans.append(plan)
        before = (plan, place, state["global_step"])
    if not plans:
        raise ValueError(
            f"nothing in {str(folder)!r} says what was requested (no {_ARGUMENTS}, no {LEARNING_RATES}): give the YAML "
            "file of the run with --config"
        )
    if plans[0].group_schedule is not None and plans[0].group_schedule.transition is not None:
        notes.append(
            f"the run was resumed at step {plans[0].group_schedule.transition.step} under another plan, and no checkpoint from "
            "before is left: the steps up to there are judged by the new plan"
        )
    return plans


def _told(saved: Saved | None, folder: Path, state: Mapping[str, Any]) -> GroupSchedule | None:
    """The group_schedule that a run was told to go on with, by a checkpoint; its end need not have one."""
    if saved is None and (folder / COOLDOWN_DONE).is_file():
        group_schedule = GroupSchedule.from_state(read_json(folder / COOLDOWN_DONE)["group_schedule"])
        return group_schedule if group_schedule.cooldown and group_schedule.cooldown.end == state["max_steps"] else None
    return saved.group_schedule if saved and saved.group_schedule and saved.group_schedule.cooldown else None


def _branched_at(args: Any, folder: Path) -> int:
    """The step of the checkpoint of another run that this one went on from; 0 if it did not."""
    checkpoint = getattr(args, "resume_from_checkpoint", None)
    if not isinstance(checkpoint, str) or Path(checkpoint).absolute().parent == folder.absolute():
        return 0
    step = re.fullmatch(r"checkpoint-(\d+)", Path(checkpoint).name)
    return int(step[1]) if step else 0


def _after(before: tuple[Plan, Path, int], plan: Plan, args: Any) -> Plan:
    """The plan of a run's end that no checkpoint holds: the last one's, or what a resume made of it."""
    last, place, _ = before
    assert last.group_schedule is not None
    if plan.same(last):
        return replace(last, first=plan.first)
    on_resume, _ = split_on_resume(vars(args).get("lr_scheduler_kwargs"))
    peaks = tuple(peak * plan.learning_rate / last.learning_rate for peak in last.group_schedule.peaks)
    requested = GroupSchedule(plan.schedule or last.group_schedule.schedule, peaks)
    group_schedule = resumed(read_state(read_pickle(place / "scheduler.pt")), requested, plan.name, on_resume)
    return replace(plan, group_schedule=group_schedule)


def trusted(schedule: Schedule, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The steps whose rates a curve alone gives: not those of a warmup by trust ratios."""
    outside = np.ones(len(steps), dtype=bool)
    for segment in schedule.segments:
        if segment.trust_coefficient is not None:
            outside &= (steps < segment.first) | (steps >= segment.first + segment.steps)
    return outside


def share_text(share: float) -> str:
    """A ratio as a short fraction if it is one (`1/2`), else as a number."""
    short = Fraction(share).limit_denominator(64)
    return str(short) if abs(float(short) - share) <= 1e-9 * share else f"{share:.6g}"
