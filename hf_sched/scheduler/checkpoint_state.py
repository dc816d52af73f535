"""Contents of `scheduler.pt`: reads the state of our scheduler and, as far as possible, of any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from hf_sched.scheduler.group_schedule import GroupSchedule

STATE_FORMAT = 2


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
    return "format" in state and "schedule" in state


def load_state(checkpoint: str | PathLike[str]) -> Saved:
    """Read `scheduler.pt` of a checkpoint folder; see `read_state`."""
    import torch  # slow to import

    return read_state(torch.load(Path(checkpoint, "scheduler.pt"), map_location="cpu", weights_only=True))


def read_state(state: Mapping[str, Any]) -> Saved:
    """Read what a scheduler's state says about the learning rate; raise a ValueError if that is not possible."""
    if is_own_state(state):
        if state["format"] != STATE_FORMAT:
            raise ValueError(
                f"the checkpoint's scheduler state has format {state['format']!r}, but this hf_sched reads format "
                f"{STATE_FORMAT}: install the version of hf_sched that wrote it"
            )
        group_schedule, step = GroupSchedule.from_state(dict(state)), int(state["last_epoch"])
        return Saved(state["name"], step, group_schedule.at(step), group_schedule.peaks, group_schedule)
    try:
        rates = tuple(float(rate) for rate in state["_last_lr"])
        peaks = tuple(float(peak) for peak in state.get("base_lrs", rates))
        return Saved("a schedule outside hf_sched", int(state["last_epoch"]), rates, peaks, None)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"hf_sched cannot read the checkpoint's scheduler state (keys: {', '.join(map(str, state)) or 'none'}; "
            f"{type(error).__name__}: {error}): start a new run from its weights, without `resume_from_checkpoint`"
        ) from None
