"""Contents of `scheduler.pt`: reads the state of our scheduler and, as far as possible, of any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from hf_sched.scheduler.group_schedule import GroupSchedule


@dataclass(frozen=True)
class Saved:
    """What a checkpoint records about the learning rate."""

    name: str
    step: int
    """The next optimizer step."""
    rates: tuple[float, ...]
    """Each group's learning rate at that step."""
    peaks: tuple[float, ...]
    group_schedule: GroupSchedule | None
    """None if the scheduler does not save its curve, as transformers' own schedulers."""


def is_own_state(state: Mapping[str, Any]) -> bool:
    """Whether a `ScheduleLR` wrote the state."""
    return "schedule" in state


def load_state(checkpoint: str | PathLike[str]) -> Saved:
    """Read `scheduler.pt` of a checkpoint folder; see `read_state`."""
    import torch  # slow to import

    return read_state(torch.load(Path(checkpoint, "scheduler.pt"), map_location="cpu", weights_only=True))


def read_state(state: Mapping[str, Any]) -> Saved:
    """Read what a scheduler's state says about the learning rate."""
    if is_own_state(state):
        group_schedule, step = GroupSchedule.from_state(dict(state)), int(state["last_epoch"])
        return Saved(state["name"], step, group_schedule.at(step), group_schedule.peaks, group_schedule)
    rates = tuple(map(float, state["_last_lr"]))
    peaks = tuple(map(float, state.get("base_lrs", rates)))
    return Saved("a schedule outside hf_sched", int(state["last_epoch"]), rates, peaks, None)
