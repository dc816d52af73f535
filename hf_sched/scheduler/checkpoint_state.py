"""Contents of `scheduler.pt`: reads the state of our scheduler and, as far as possible, of any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import Saved

STATE_FORMAT = 2


def plain(value: Any) -> Any:
    """Convert to plain numbers, strings, lists and dicts; `weights_only=True` loads nothing else."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def is_own_state(state: Mapping[str, Any]) -> bool:
    """Whether a `ScheduleLR` wrote the state."""
    return "format" in state and "schedule" in state


def read_state(state: Mapping[str, Any]) -> Saved:
    """Read what a scheduler's state says about the learning rate.

    Raises:
        ValueError: The state has another format, or lacks the step or the learning rates.
    """
    if is_own_state(state):
        if state["format"] != STATE_FORMAT:
            raise ValueError(
                f"the checkpoint's scheduler state has format {state['format']!r}, but this hf_sched reads format "
                f"{STATE_FORMAT}: install the version of hf_sched that wrote it"
            )
        group_schedule = GroupSchedule.from_state(dict(state))
        step = int(state["last_epoch"])
        rates = tuple(group_schedule.rates(step, step + 1)[:, 0].tolist())
        return Saved(state["name"], step, rates, group_schedule.peaks, group_schedule)
    try:
        rates = tuple(float(rate) for rate in state["_last_lr"])
        peaks = tuple(float(peak) for peak in state.get("base_lrs", rates))
        return Saved("a schedule outside hf_sched", int(state["last_epoch"]), rates, peaks, None)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"hf_sched cannot read the checkpoint's scheduler state (keys: {', '.join(map(str, state)) or 'none'}; "
            f"{type(error).__name__}: {error}): start a new run from its weights, without `resume_from_checkpoint`"
        ) from None
