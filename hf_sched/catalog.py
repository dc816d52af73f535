"""The catalogue: each named schedule is a function that returns its phases.

What all of them share is not written here: the registry puts the Trainer's warmup in front (except where a schedule
takes a `warmup` of its own), gives each the arguments `floor_ratio` and `min_lr`, and checks every argument by its
annotation. A new schedule is one more function, just as a user's own would be.
"""

from __future__ import annotations

import warnings
from typing import Annotated

from hf_sched import cycles, phases, shapes
from hf_sched.arguments import Count, Duration, OneOf, Positive, Ratio, as_steps
from hf_sched.phases import Phase
from hf_sched.registry import register

DEFAULT_CYCLES = 4

WarmupShape = Annotated[str, OneOf(shapes.WARMUP_SHAPES)]


@register("cosine_floor", floor_ratio=0.1)
def cosine_floor() -> list[Phase]:
    """Half a cosine from the peak to a floor.

    `floor + (peak - floor) * (1 + cos(pi * t / T)) / 2`: the cosine of Loshchilov and Hutter 2016 (arXiv 1608.03983),
    ending on a floor, by default a tenth of the peak as in Hoffmann et al. 2022 (arXiv 2203.15556).
    """
    return [phases.decay(shape="cosine")]


@register("warmup_cosine")
def warmup_cosine(
    *, warmup: Duration = "5%", warmup_shape: WarmupShape = "linear", warmup_start_ratio: Ratio = 0.0
) -> list[Phase]:
    """A warmup of any shape, then half a cosine to the floor.

    The warmup goes from `warmup_start_ratio` times the peak to the peak, `peak * (t + 1) / W` for the linear one (Goyal
    et al. 2017, arXiv 1706.02677). `warmup` (steps, or a share of the run) holds where the Trainer gives no warmup.
    Then as `cosine_floor`, to a floor of 0 by default.
    """
    if warmup_shape == "geometric" and not 0 < warmup_start_ratio < 1:
        raise ValueError(
            "`warmup_start_ratio` must be above 0 and below 1 for the `warmup_shape` 'geometric', "
            f"received {warmup_start_ratio!r}"
        )
    return [phases.warmup(warmup, warmup_shape, start_ratio=warmup_start_ratio), phases.decay(shape="cosine")]


@register("cosine_restarts")
def cosine_restarts(
    *,
    num_training_steps: int,
    num_warmup_steps: int,
    num_cycles: Count | None = None,
    first_cycle: Duration | None = None,
    cycle_multiplier: Positive = 2.0,
    peak_multiplier: Positive = 1.0,
    rewarmup: Duration = 0,
) -> list[Phase]:
    """Cosines to the floor, one after another, each starting again from the top (SGDR).

    Cycle i (from 0) falls from `peak_multiplier ** i` times the peak to the floor and is `cycle_multiplier` times as
    long as the one before it (Loshchilov and Hutter 2016, arXiv 1608.03983). `num_cycles`, 4 by default, fill the run
    exactly. With `first_cycle` (steps, or a share of the run) instead, a last cycle that would be cut off is merged
    into the one before it, and a warning says so. With `rewarmup` (likewise) each cycle but the first climbs to its
    peak over that many of its steps, rather than jumping there.
    """
    if num_cycles is not None and first_cycle is not None:
        raise ValueError(
            f"the cycles are given twice: give either `num_cycles` or `first_cycle`, received {num_cycles!r} and "
            f"{first_cycle!r}"
        )
    total = num_training_steps - num_warmup_steps
    climb = as_steps(rewarmup, num_training_steps)
    if first_cycle is None:
        lengths = _filling_cycles(total, num_cycles, cycle_multiplier, climb)
    else:
        lengths = _growing_cycles(total, as_steps(first_cycle, num_training_steps), cycle_multiplier, climb)
    laid: list[Phase] = []
    for i, steps in enumerate(lengths):
        top = _power("peak_multiplier", peak_multiplier, i)
        if i == 0:
            laid.append(phases.decay(steps, "cosine"))
        elif climb:
            laid += [phases.warmup(climb, start_ratio=None, peak_ratio=top), phases.decay(steps - climb, "cosine")]
        else:
            laid.append(phases.restart(steps, "cosine", peak_ratio=top))
    return laid


def _filling_cycles(total: int, wanted: int | None, multiplier: float, climb: int) -> list[int]:
    shortest = max(2, climb + 1)
    num_cycles = wanted or DEFAULT_CYCLES
    lengths = [total] if num_cycles == 1 else cycles.fill(total, num_cycles, multiplier, shortest)
    if lengths:
        return lengths
    if wanted or climb:
        raise ValueError(
            f"`num_cycles` must leave each cycle {shortest} steps or more, but {num_cycles} cycles, each "
            f"{multiplier:g} times as long as the one before (`cycle_multiplier`), do not fit so into {total} steps: "
            f"ask for fewer, for a multiplier nearer to 1{', or for a shorter `rewarmup`' if climb else ''}"
        )
    # Nobody chose the number, and a trial run of a few steps should not fail for it.
    fewer = [cycles.fill(total, n, multiplier, shortest) for n in range(DEFAULT_CYCLES - 1, 1, -1)]
    lengths = next(filter(None, fewer), [total])
    _warn(
        f"{DEFAULT_CYCLES} cycles do not fit into {total} steps, so there are {len(lengths)}; set `num_cycles` to "
        "choose"
    )
    return lengths


def _growing_cycles(total: int, first_cycle: int, multiplier: float, climb: int) -> list[int]:
    shortest = max(2, climb + 1)
    if not min(shortest, total) <= first_cycle <= total:
        raise ValueError(
            f"`first_cycle` must be {shortest} steps or more and at most the {total} steps after the warmup, received "
            f"{first_cycle} steps"
        )
    lengths, left, following = cycles.walk(total, first_cycle, multiplier, min(shortest, total))
    if left >= shortest > following:
        raise ValueError(
            f"`cycle_multiplier` {multiplier:g} shrinks the cycles to nothing {left} steps before the end of the run: "
            "raise it or `first_cycle`, or give `num_cycles`, whose cycles fill the run"
        )
    if left:
        lengths[-1] += left
        _warn(
            f"the next cycle would have {following} steps, but only {left} are left: they are merged into the cycle "
            f"before it, number {len(lengths)}, which now has {lengths[-1]} steps"
        )
    return lengths


def _power(name: str, base: float, exponent: int) -> float:
    try:
        return base**exponent
    except OverflowError:
        raise ValueError(f"`{name}` {base!r} grows beyond all numbers by cycle {exponent + 1}: lower it") from None


def _warn(message: str) -> None:
    warnings.warn(f"cosine_restarts: {message}", UserWarning, stacklevel=2)
