"""Checkpoints of format 1, as hf_sched 0.1 wrote them: how they spelt a schedule, so that they still resume."""

from __future__ import annotations

import re

from hf_sched.schedule import Schedule


def from_format_1(text: str) -> str:
    """The text `warmup 10 linear 0.0 -> peak | ...; floor 0.1 * peak` of hf_sched 0.1, as a schedule is written now."""
    segments, _, floor = text.partition("; floor ")
    laid = []
    for segment in segments.split(" | "):
        words = re.fullmatch(r"(\w+) (\d+)(?: (\S+) (.+) -> (.+?))?(?:, jump)?", segment)
        if words is None:
            raise ValueError(f"the checkpoint's schedule is damaged: {text!r}")
        kind, steps, shape, start, end = words.groups()
        laid.append(f"{kind} {steps} {shape} from {start} to {end}" if shape else f"hold {steps}")
    number, _, of_peak = floor.partition(" * ")
    return str(Schedule.parse(f"{' | '.join(laid)}; {'floor' if of_peak else 'min_lr'} {number}"))
