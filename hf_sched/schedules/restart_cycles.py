"""Restart cycles: a run cut into cycles of whole steps, each longer (or shorter) than the one before by a factor.

The cycles are walked one by one in integers. Finding a cycle with a logarithm, as other libraries do, picks the wrong
one at some restarts.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise


def fill(total: int, num_cycles: int, multiplier: float, shortest: int) -> list[int] | None:
    """The steps of `num_cycles` cycles that fill `total` steps exactly; None if one would be shorter than `shortest`.

    Where a cycle ends is rounded, not how long it is, so that no rounding adds up.
    """
    if num_cycles * shortest > total:
        return None
    # Relative to the longest cycle, so that no power overflows.
    longest = num_cycles - 1 if multiplier > 1 else 0
    ends = list(accumulate(multiplier ** (i - longest) for i in range(num_cycles)))
    stops = [0, *(math.floor(total * (end / ends[-1]) + 0.5) for end in ends)]
    cycles = [stop - start for start, stop in pairwise(stops)]
    return cycles if min(cycles) >= shortest else None


def walk(total: int, first_cycle: int, multiplier: float, shortest: int) -> tuple[list[int], int, int]:
    """Cycles from `first_cycle` steps on: their lengths, the steps of `total` left over, and the length of the next.

    The lengths are `first_cycle * multiplier ** i`, rounded to whole steps. The walk ends before a cycle that would be
    cut off, or would be shorter than `shortest`.
    """
    cycles: list[int] = []
    left, length, steps = total, float(first_cycle), first_cycle
    while shortest <= steps <= left:
        cycles.append(steps)
        left -= steps
        length *= multiplier
        steps = math.floor(min(length, total + 1.0) + 0.5)
    return cycles, left, steps
