"""Restart cycles: a run cut into cycles of whole steps, each longer (or shorter) than the one before by a factor.

The cycles are walked one by one in integers. Finding a cycle with a logarithm, as other libraries do, picks the wrong
one at some restarts.
"""

from __future__ import annotations

import math
import warnings
from itertools import accumulate, pairwise

from hf_sched.schedules.validation import ArgumentError

DEFAULT_CYCLES = 4


def filling(total: int, num_cycles: int | None, multiplier: float, climb: int) -> list[int]:
    """The lengths of `num_cycles` cycles that fill `total` steps; by default 4, or with a warning fewer in a short run.

    Each but the first begins with `climb` steps of warmup.
    """
    shortest = max(2, climb + 1)
    if num_cycles:
        if lengths := _fill(total, num_cycles, multiplier, shortest):
            return lengths
        remedy = f"use fewer, a `cycle_multiplier` nearer to 1{' or a shorter `rewarmup`' if climb else ''}"
        rule = f"must leave each of the cycles in {total} steps {shortest} steps or more"
        raise ArgumentError("num_cycles", received=num_cycles, hint=remedy, rule=rule)
    fitting = (_fill(total, number, multiplier, shortest) for number in range(DEFAULT_CYCLES, 1, -1))
    lengths = next(filter(None, fitting), [total])
    if len(lengths) < DEFAULT_CYCLES:
        made = f"so there are {len(lengths)}; set `num_cycles` to choose"
        warnings.warn(f"cosine_restarts: {DEFAULT_CYCLES} cycles do not fit into {total} steps, {made}", stacklevel=2)
    return lengths


def _fill(total: int, num_cycles: int, multiplier: float, shortest: int) -> list[int] | None:
    """Where a cycle ends is rounded, not how long it is, so that no rounding adds up. None if a cycle is too short."""
    if num_cycles * shortest > total:
        return None
    # Relative to the longest cycle, so that no power overflows.
    longest = num_cycles - 1 if multiplier > 1 else 0
    ends = list(accumulate(multiplier ** (i - longest) for i in range(num_cycles)))
    stops = [0, *(math.floor(total * (end / ends[-1]) + 0.5) for end in ends)]
    cycles = [stop - start for start, stop in pairwise(stops)]
    return cycles if min(cycles) >= shortest else None


def growing(total: int, first_cycle: int, multiplier: float, climb: int) -> list[int]:
    """The lengths of cycles from `first_cycle` steps on, `first_cycle * multiplier ** i`, rounded to whole steps.

    Steps that are too few for another cycle are merged into the last one, with a warning.
    """
    shortest = max(2, climb + 1)
    if not min(shortest, total) <= first_cycle <= total:
        allowed = f"{shortest} steps or more and at most the {total} steps after the warmup"
        raise ArgumentError("first_cycle", allowed, f"{first_cycle} steps")
    cycles: list[int] = []
    left, length, steps = total, float(first_cycle), first_cycle
    while min(shortest, total) <= steps <= left:
        cycles.append(steps)
        left -= steps
        length *= multiplier
        steps = math.floor(min(length, total + 1.0) + 0.5)
    if left:
        cycles[-1] += left
        merged = f"merged into the previous cycle, number {len(cycles)}, which now has {cycles[-1]} steps"
        warnings.warn(f"cosine_restarts: the last {left} steps are no whole cycle; they are {merged}", stacklevel=2)
    return cycles
