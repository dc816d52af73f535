"""What `scheduler.pt` holds: written in the newest format, read in every format, and from other schedulers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_sched.scheduler.group_schedule import GroupSchedule
from hf_sched.scheduler.resume import Saved

STATE_FORMAT = 2


def plain(value: Any) -> Any:
    """The value out of plain numbers, strings, lists and dicts, since that is all that `weights_only=True` loads."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def read_state(state: Mapping[str, Any]) -> Saved:
    """What a scheduler's state says of the learning rate, whoever wrote it.

    Raises:
        ValueError: It does not even say at which step and learning rate it was written.
    """
    if state.get("format") in (1, STATE_FORMAT) and "schedule" in state:
        if state["format"] == 1:
            state = {**state, "schedule": _from_format_1(state["schedule"])}
        group_schedule = GroupSchedule.from_state(dict(state))
        step = int(state["last_epoch"])
        return Saved(
            state["name"],
            step,
            tuple(group_schedule.rates(step, step + 1)[:, 0].tolist()),
            group_schedule.peaks,
            group_schedule,
        )
    if "format" in state and "schedule" in state:
        raise ValueError(
            f"the checkpoint's scheduler state has the format {state['format']!r}, but this hf_sched reads 1 to "
            f"{STATE_FORMAT}: install a newer hf_sched"
        )
    try:
        return Saved(
            "a schedule that is not of hf_sched",
            int(state["last_epoch"]),
            tuple(float(rate) for rate in state["_last_lr"]),
            tuple(float(peak) for peak in state.get("base_lrs", state["_last_lr"])),
            None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the checkpoint's scheduler state is none that hf_sched can read (it has {', '.join(map(str, state))}; "
            f"{type(error).__name__}: {error}): start a new run from its weights, without `resume_from_checkpoint`"
        ) from None


def _from_format_1(text: str) -> str:
    """The text of hf_sched 0.1, `warmup 10 linear 0.0 -> peak | ...; floor 0.1 * peak`, in the phase language."""
    segments, _, floor = text.partition("; floor ")
    laid = []
    for segment in segments.split(" | "):
        words = re.fullmatch(r"(\w+) (\d+)(?: (\S+) (.+) -> (.+?))?(?:, jump)?", segment)
        if words is None:
            raise ValueError(f"the checkpoint's schedule is damaged: {text!r}")
        kind, steps, shape, start, end = words.groups()
        laid.append(f"{kind} {steps} {shape} from {start} to {end}" if shape else f"hold {steps}")
    number, _, of_peak = floor.partition(" * ")
    return f"{' | '.join(laid)}; {'floor' if of_peak else 'min_lr'} {number}"
