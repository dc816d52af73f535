"""The catalogue: each schedule is a function that returns its phases.

The registry adds what all schedules have in common: it prepends the Trainer's warmup (unless the function has an
argument `warmup`), adds the arguments `floor_ratio` and `min_lr`, and checks every argument by its annotation. To add a
schedule, write one more function, as a user would.

The docstrings are the source of `docs/schedules.md` and `hf-sched show`. In their formulas `peak` is the learning rate
of a parameter group, `floor` its floor, `t` the number of optimizer steps since the one that trained at the peak, and
`T` the number of steps from there to the last one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

from hf_sched.schedules import phases, registry, schedule_text
from hf_sched.schedules import restart_cycles as cycles
from hf_sched.schedules.phase_parser import PhasesReader
from hf_sched.schedules.phases import PEAK, Level, Phase, ScheduleSpec
from hf_sched.schedules.registry import register
from hf_sched.schedules.shapes import DECAY_SHAPES, WARMUP_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import (
    ArgumentError,
    Count,
    Duration,
    DurationReader,
    Keywords,
    ListOf,
    Number,
    Period,
    Positive,
    Rate,
    Ratio,
    StepUnits,
    as_steps,
    suggest,
)

WarmupShape = Annotated[str | Shape, ShapeReader(WARMUP_SHAPES)]
DecayShape = Annotated[str | Shape, ShapeReader(DECAY_SHAPES)]
Factor = Annotated[float, Number(0, 1, above_low=True)]
PeakMultiplier = Annotated[float, Number(0, 10, above_low=True)]


@register("cosine_floor", floor_ratio=0.1)
def cosine_floor() -> list[Phase]:
    """Half a cosine from the peak to a floor.

    Formula: floor + (peak - floor) * (1 + cos(pi * t / T)) / 2

    The default floor is a tenth of the peak, as in Hoffmann et al. 2022.

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983); Hoffmann et al. 2022 (arXiv 2203.15556)
    Example: {floor_ratio: 0.1}
    From torch: CosineAnnealingLR(T_max=T, eta_min=1e-5) -> {min_lr: 1.0e-5}
    From transformers: cosine_with_min_lr, {min_lr_rate: 0.1} -> {floor_ratio: 0.1}
    From timm: CosineLRScheduler(t_initial=T, lr_min=1e-5) -> {min_lr: 1.0e-5}
    From optax: cosine_decay_schedule(peak, T, alpha=0.1) -> {floor_ratio: 0.1}
    """
    return [phases.decay(shape="cosine")]


@register("warmup_cosine")
def warmup_cosine(
    *, warmup: Duration = "5%", warmup_shape: WarmupShape = "linear", warmup_start_ratio: Ratio = 0.0
) -> list[Phase]:
    """A warmup of any shape, then half a cosine to the floor.

    Formula: peak * (s + (1 - s) * shape((k + 1) / W)) at step k of the W warmup steps, s = warmup_start_ratio;
        then floor + (peak - floor) * (1 + cos(pi * t / T)) / 2

    `warmup` applies if the Trainer gives no warmup. `warmup_shape` may be any warmup shape.

    Source: Goyal et al. 2017 (arXiv 1706.02677); Loshchilov and Hutter 2016 (arXiv 1608.03983)
    Example: {warmup: "10%", warmup_shape: cosine}
    From torch: SequentialLR([LinearLR(0.1, total_iters=W), CosineAnnealingLR(T)], [W]) ->
        {warmup: W, warmup_start_ratio: 0.1}
    From transformers: cosine -> {}
    From timm: CosineLRScheduler(t_initial=T, warmup_t=W, warmup_lr_init=0.1 * peak, warmup_prefix=True) ->
        {warmup: W, warmup_start_ratio: 0.1}
    From optax: warmup_cosine_decay_schedule(0.1 * peak, peak, W, N) -> {warmup: W, warmup_start_ratio: 0.1}
    """
    return [phases.warmup(warmup, warmup_shape, start=warmup_start_ratio), phases.decay(shape="cosine")]


@register("cosine_restarts")
def cosine_restarts(
    *,
    num_training_steps: int,
    num_warmup_steps: int,
    num_cycles: Count | None = None,
    first_cycle: Duration | None = None,
    cycle_multiplier: Positive = 2.0,
    peak_multiplier: PeakMultiplier = 1.0,
    rewarmup: Duration = 0,
) -> list[Phase]:
    """Cosines to the floor, one after another, each starting again from its peak (SGDR).

    Formula: floor + (peak * peak_multiplier ** i - floor) * (1 + cos(pi * p)) / 2
        in cycle i, which has n = n_0 * cycle_multiplier ** i steps; at its step j p = j / (n - 1),
        or (j + 1) / n in the first cycle after a warmup

    `num_cycles`, 4 by default, fill the run exactly. With `first_cycle` instead, a last cycle that would be cut off is
    merged into the previous one, with a warning. With `rewarmup` each cycle except the first climbs to its peak over
    that many of its steps. The cycles of torch, transformers and timm end one step before their floor.

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983)
    Example: {num_cycles: 3, cycle_multiplier: 2.0, peak_multiplier: 0.7}
    From torch: CosineAnnealingWarmRestarts(T_0=100, T_mult=2) -> {first_cycle: 100, cycle_multiplier: 2}
    From transformers: cosine_with_restarts, {num_cycles: 3} -> {num_cycles: 3, cycle_multiplier: 1}
    From timm: CosineLRScheduler(t_initial=100, cycle_mul=2, cycle_decay=0.7, cycle_limit=3) ->
        {first_cycle: 100, cycle_multiplier: 2, peak_multiplier: 0.7}
    """
    total = num_training_steps - num_warmup_steps
    climb = as_steps(rewarmup, num_training_steps)
    if first_cycle is None:
        lengths = cycles.filling(total, num_cycles, cycle_multiplier, climb)
    elif num_cycles is None:
        lengths = cycles.growing(total, as_steps(first_cycle, num_training_steps), cycle_multiplier, climb)
    else:
        rule = f"cannot be combined with `num_cycles` {num_cycles!r}"
        raise ArgumentError("first_cycle", received=first_cycle, hint="give one of them", rule=rule)
    parts = [phases.decay(lengths[0], "cosine")]
    for i, steps in enumerate(lengths[1:], 1):
        top = peak_multiplier**i
        if climb:
            parts += [phases.warmup(climb, to=top), phases.decay(steps - climb, "cosine")]
        else:
            parts.append(phases.restart(steps, "cosine", start=top))
    return parts


@register("cosine_cyclic")
def cosine_cyclic(
    *, num_training_steps: int, num_warmup_steps: int, half_period: Period, peak_multiplier: PeakMultiplier = 1.0
) -> list[Phase]:
    """A cosine wave, down to the floor and up again, without jumps.

    Formula: floor + (peak - floor) * (1 + cos(pi * t / half_period)) / 2

    Each crest is `peak_multiplier` times as high as the previous one. The run always ends on the floor: if needed, the
    last descent is made shorter or longer (half to two and a half times as long), with a warning.

    Source: torch.optim.lr_scheduler.CosineAnnealingLR after its T_max
    Example: {half_period: "19%", peak_multiplier: 0.7}
    From torch: CosineAnnealingLR(T_max=100) -> {half_period: 100}
    """
    half = as_steps(half_period, num_training_steps)
    first = half + (not num_warmup_steps)  # without a warmup the crest is a separate step
    steps = num_training_steps - num_warmup_steps
    if half < 1 or first > steps:
        allowed = f"1 step or more and at most the {steps} steps after the warmup"
        raise ArgumentError("half_period", allowed, half_period, f"that is {half} steps")
    waves, left = divmod(steps - first, 2 * half)
    descents = [first, *[half] * waves]
    if 2 * (left - half) >= half:
        descents.append(left - half)
    else:
        descents[-1] += left
    if left:
        adapted = f"the last descent has {descents[-1]} steps instead of {half}"
        warnings.warn(f"cosine_cyclic: the run does not end on a trough, so {adapted}", UserWarning, stacklevel=2)
    parts = [phases.decay(descents[0], "cosine")]
    for i, descent in enumerate(descents[1:], 1):
        crest = peak_multiplier**i
        parts += [phases.warmup(half, "cosine", to=crest), phases.decay(descent, "cosine")]
    return parts


@register("minimind", floor_ratio=0.1)
def minimind() -> list[Phase]:
    """MiniMind's cosine, which starts at 1.1 times the learning rate and ends at a tenth of it.

    Formula: floor + peak * (1 + cos(pi * t / T)) / 2

    A warmup climbs to the peak plus the floor. For newer versions of MiniMind use `cosine_floor`.

    Source: MiniMind (github.com/jingyaogong/minimind), get_lr of its older versions
    Example: {}
    """
    return [phases.decay(shape="cosine", start=Level(1.0, 1.0))]


@register("linear_with_warmup")
def linear_with_warmup() -> list[Phase]:
    """A straight line from the peak to the floor.

    Formula: floor + (peak - floor) * (1 - t / T)

    Source: Devlin et al. 2018 (arXiv 1810.04805); Defazio et al. 2023 (arXiv 2310.07831)
    Example: {}
    From torch: LinearLR(1.0, 0.0, total_iters=T) -> {}
    From transformers: linear -> {}
    From timm: PolyLRScheduler(t_initial=T, power=1.0) -> {}
    From optax: linear_schedule(peak, 0.1 * peak, T) -> {floor_ratio: 0.1}
    """
    return [phases.decay()]


@register("exponential")
def exponential(
    *,
    num_training_steps: int,
    num_warmup_steps: int,
    gamma: Factor | None = None,
    decay_rate: Rate | None = None,
    floor_ratio: Factor | None = None,
) -> list[Phase]:
    """A constant ratio from one step to the next.

    Formula: peak * gamma ** t, or peak * exp(-decay_rate * t), or peak * floor_ratio ** (t / T)

    Give one of `gamma`, `decay_rate` and `floor_ratio`. With `floor_ratio` the last step is at that share of the peak.

    Source: torch.optim.lr_scheduler.ExponentialLR
    Example: {floor_ratio: 0.01}
    From torch: ExponentialLR(gamma=0.999) -> {gamma: 0.999}
    From timm: StepLRScheduler(decay_t=1, decay_rate=0.999) -> {gamma: 0.999}
    From optax: exponential_decay(peak, 1, 0.999) -> {gamma: 0.999}
    """
    given = _given(gamma=gamma, decay_rate=decay_rate, floor_ratio=floor_ratio)
    if len(given) != 1:
        received = ", ".join(f"{name}: {value!r}" for name, value in given.items()) or "none of them"
        rule = f"must be the only one of `gamma`, `decay_rate` and `floor_ratio`, received {received}"
        raise ArgumentError(next(iter(given), "floor_ratio"), rule=rule)
    steps = _steps_from_the_peak(num_training_steps, num_warmup_steps)
    if floor_ratio is not None:
        return [phases.hold() if floor_ratio == 1 else phases.decay(shape="geometric")]
    rate = steps * (decay_rate if gamma is None else -math.log(gamma))  # type: ignore[operator]
    if rate == math.inf:
        raise ArgumentError("decay_rate", f"small enough for {steps} steps", decay_rate)
    return [phases.decay(shape=Shape("exponential", rate), to=math.exp(-rate)) if rate else phases.hold()]


@register("step", floor_ratio=None)
def step(*, num_training_steps: int, num_warmup_steps: int, step_size: Period, gamma: Factor = 0.1) -> list[Phase]:
    """Multiply the learning rate by a factor every `step_size` steps.

    Formula: peak * gamma ** floor(t / step_size)

    Source: torch.optim.lr_scheduler.StepLR
    Example: {step_size: "30%", gamma: 0.3}
    From torch: StepLR(step_size=30, gamma=0.1) -> {step_size: 30, gamma: 0.1}
    From timm: StepLRScheduler(decay_t=30, decay_rate=0.1) -> {step_size: 30, gamma: 0.1}
    From optax: exponential_decay(peak, 30, 0.1, staircase=True) -> {step_size: 30, gamma: 0.1}
    """
    size = max(as_steps(step_size, num_training_steps), 1)
    rate = -math.log(gamma) * (_steps_from_the_peak(num_training_steps, num_warmup_steps) // size)
    if not rate:
        return [phases.hold()]
    return [phases.decay(shape=Shape("exponential", rate), to=math.exp(-rate), every=size)]


@register("multistep", floor_ratio=None)
def multistep(
    *,
    num_training_steps: int | None,
    num_warmup_steps: int,
    milestones: Annotated[list[Any], ListOf(DurationReader(above_zero=True))],
    gamma: Factor = 0.1,
) -> list[Phase]:
    """Multiply the learning rate by a factor at each milestone.

    Formula: peak * gamma ** (number of milestones at or before optimizer step k)

    Milestones are optimizer steps of the run (counted from 0, warmup included), or other durations from its start.

    Source: torch.optim.lr_scheduler.MultiStepLR
    Example: {milestones: ["50%", "75%"], gamma: 0.1}
    From torch: MultiStepLR(milestones=[300, 600], gamma=0.1) -> {milestones: [300, 600], gamma: 0.1}
    From timm: MultiStepLRScheduler(decay_t=[301, 601], decay_rate=0.1) -> {milestones: [300, 600], gamma: 0.1}
    From optax: piecewise_constant_schedule(peak, {300: 0.1, 600: 0.1}) -> {milestones: [300, 600], gamma: 0.1}
    """
    at = [as_steps(milestone, num_training_steps, name="milestones") for milestone in milestones]
    for i, (previous, here) in enumerate(pairwise([num_warmup_steps, *at])):
        if not previous < here or (num_training_steps is not None and here >= num_training_steps):
            warmup, end = f"the warmup ({num_warmup_steps} steps)", num_training_steps
            allowed = f"in ascending order, after {warmup}{'' if end is None else f' and before step {end}'}"
            hint = f"step {here} does not come after step {previous}"
            raise ArgumentError("milestones", allowed, milestones[i], hint)
    lengths = [*(stop - here for here, stop in pairwise(at)), None]
    return [phases.hold(at[0] - num_warmup_steps)] + [
        phases.hold(length, at=gamma**i) for i, length in enumerate(lengths, 1)
    ]


@register("polynomial_floor")
def polynomial_floor(*, power: Positive = 1.0) -> list[Phase]:
    """A power of the remaining share of the run.

    Formula: floor + (peak - floor) * (1 - t / T) ** power

    Source: transformers.get_polynomial_decay_schedule_with_warmup
    Example: {power: 2.0, floor_ratio: 0.1}
    From torch: PolynomialLR(total_iters=T, power=2.0) -> {power: 2.0}
    From transformers: polynomial, {power: 2.0, lr_end: 1.0e-7} -> {power: 2.0, min_lr: 1.0e-7}
    From timm: PolyLRScheduler(t_initial=T, power=2.0, lr_min=1e-7) -> {power: 2.0, min_lr: 1.0e-7}
    From optax: polynomial_schedule(peak, 1e-7, 2.0, T) -> {power: 2.0, min_lr: 1.0e-7}
    """
    return [phases.decay(shape=f"polynomial {power!r}")]


@register("wsd")
def wsd(*, decay: Period = "20%", decay_shape: DecayShape = "1-sqrt") -> list[Phase]:
    """Warmup, stable, decay: the peak is held until a cooldown at the end.

    Formula: peak until the last D = decay steps; then floor + (peak - floor) * (1 - sqrt((j + 1) / D))
        at step j of these

    `decay_shape` may be any decay shape. In transformers the warmup also starts at `min_lr_ratio`.

    Source: Hu et al. 2024 (arXiv 2404.06395); Hägele et al. 2024 (arXiv 2405.18392)
    Example: {decay: "20%", decay_shape: 1-sqrt}
    From transformers: warmup_stable_decay, {num_decay_steps: 200, decay_type: 1-sqrt, min_lr_ratio: 0.1} ->
        {decay: 200, floor_ratio: 0.1}
    From timm: WSDLRScheduler(t_initial=T, decay_t=200, lr_min=1e-5) -> {decay: 200, min_lr: 1.0e-5}
    From optax: join_schedules([linear_schedule(0, peak, W), constant_schedule(peak), linear_schedule(peak, 0, 200)],
        [W, N - 200]) -> {decay: 200, decay_shape: linear}
    """
    return [phases.hold(), phases.decay(decay, decay_shape)]


@register("inverse_sqrt_cooldown")
def inverse_sqrt_cooldown(
    *, num_training_steps: int, num_warmup_steps: int, timescale: Period | None = None, cooldown: Period = "20%"
) -> list[Phase]:
    """The inverse square root of the step, then a straight line to the floor.

    Formula: peak * sqrt(timescale / (timescale + t)), and a line to the floor over the last `cooldown` steps

    The default `timescale` is the length of the warmup, as in Vaswani et al. 2017.

    Source: Vaswani et al. 2017 (arXiv 1706.03762); Zhai et al. 2021 (arXiv 2106.04560)
    Example: {timescale: "10%", cooldown: "20%"}
    From transformers: inverse_sqrt, {timescale: 1000} -> {timescale: 1000, cooldown: 1}
    """
    scale = num_warmup_steps if timescale is None else as_steps(timescale, num_training_steps)
    if scale < 1:
        raise ArgumentError("timescale", "1 step or more", timescale, "the default is the length of the warmup")
    last = max(as_steps(cooldown, num_training_steps), 1)
    available = num_training_steps - num_warmup_steps
    steps = available - last
    if steps < 0:
        allowed = f"at most the {available} steps after the warmup"
        raise ArgumentError("cooldown", allowed, cooldown, f"that is {last} steps")
    length = (steps - (not num_warmup_steps)) / scale
    if length <= 0:
        return [phases.hold(steps), phases.decay(last)]
    return [phases.decay(steps, Shape("inverse_sqrt", length), to=(1.0 + length) ** -0.5), phases.decay(last)]


@register("cosine_constant")
def cosine_constant(
    *, decay: Period = "60%", constant_ratio: Ratio = 0.1, anneal: Period = "10%", anneal_shape: DecayShape = "linear"
) -> list[Phase]:
    """A cosine to a constant that may be extended indefinitely, and an anneal at the end.

    Formula: c + (peak - c) * (1 + cos(pi * t / D)) / 2 over the first D = decay steps, c = constant_ratio * peak;
        then c; then from c to the floor over the last `anneal` steps

    `anneal_shape` may be any decay shape.

    Source: Ibrahim et al. 2024 (arXiv 2403.08763), whose anneal is exponential
    Example: {decay: "60%", constant_ratio: 0.1, anneal: "10%"}
    """
    return [phases.decay(decay, "cosine", to=constant_ratio), phases.hold(), phases.decay(anneal, anneal_shape)]


@register("one_cycle", floor_ratio=None)
def one_cycle(*, warmup: Duration = "30%", start_ratio: Ratio = 0.04, final_ratio: Ratio = 1e-4) -> list[Phase]:
    """One long cosine rise, then one long cosine fall.

    Formula: from start_ratio * peak to peak over `warmup` steps, then to final_ratio * peak, both half a cosine

    Both ratios are shares of the peak. In torch and optax `final_div_factor` divides the start instead.

    Source: Smith and Topin 2017 (arXiv 1708.07120); Smith 2018 (arXiv 1803.09820); with cosines as in torch and optax
    Example: {warmup: "30%", start_ratio: 0.04}
    From torch: OneCycleLR(max_lr=peak, total_steps=N, pct_start=0.3, div_factor=25, final_div_factor=1e4) ->
        {warmup: "30%", start_ratio: 0.04, final_ratio: 4.0e-6}
    """
    return [phases.warmup(warmup, "cosine", start=start_ratio), phases.decay(shape="cosine", to=final_ratio)]


@register("rex")
def rex() -> list[Phase]:
    """Reflected exponential: nearly a line at first, steep at the end.

    Formula: floor + (peak - floor) * (1 - z) / (1 - z / 2) with z = t / T

    Source: Chen et al. 2021 (arXiv 2107.04197)
    Example: {}
    """
    return [phases.decay(shape="rex")]


@register("gradual_warmup")
def gradual_warmup(
    *,
    num_training_steps: int | None,
    units: StepUnits,
    warmup: Duration = "5%",
    multiplier: Annotated[float, Number(1)] = 1.0,
    after: str | None = None,
    after_kwargs: Keywords | None = None,
    floor_ratio: Ratio | None = None,
    min_lr: Rate | None = None,
) -> ScheduleSpec:
    """A warmup beyond the peak, then any other schedule from there.

    Formula: peak * (1 + (multiplier - 1) * (k + 1) / W) at step k of the W warmup steps (from 0 if multiplier is 1);
        then `after` with the peak multiplier * peak

    `after` is another schedule of hf_sched and `after_kwargs` its arguments; without it the level is held. The floor is
    a share of the peak, not of the multiplied peak.

    Source: Goyal et al. 2017 (arXiv 1706.02677)
    Example: {multiplier: 2.0, warmup: "10%", after: cosine_floor}
    """
    steps = as_steps(warmup, num_training_steps, name="warmup")
    floor = _given(floor_ratio=floor_ratio, min_lr=min_lr)
    rest = _following(after, after_kwargs or {}, floor, num_training_steps, steps, units)
    if not steps and multiplier > 1:
        raise ArgumentError("warmup", f"1 step or more to reach `multiplier` {multiplier!r}", warmup)
    higher = [phase.scaled(multiplier) for phase in rest.phases]
    top = higher[0].start or PEAK.scaled(multiplier)
    rise = phases.warmup(steps, start=1.0 if multiplier > 1 else 0.0, to=top)
    return ScheduleSpec((rise, *higher), rest.floor_ratio, rest.min_lr)


@register("lars_warmup")
def lars_warmup(
    *,
    num_training_steps: int | None,
    units: StepUnits,
    warmup: Duration = "5%",
    trust_coefficient: Positive = 0.001,
    after: str | None = None,
    after_kwargs: Keywords | None = None,
    floor_ratio: Ratio | None = None,
    min_lr: Rate | None = None,
) -> ScheduleSpec:
    """A warmup that scales each layer's learning rate by its trust ratio, then any other schedule.

    Formula: peak * p * (p + (1 - p) * r), p = (k + 1) / W at step k of the W warmup steps,
        r = trust_coefficient * norm(w) / (norm(g) + weight_decay * norm(w)), 1 at most

    `after` and `after_kwargs` are those of gradual_warmup. Plots show the curve for r = 1. Each parameter tensor is a
    layer and needs its own parameter group: the scheduler splits the groups of an optimizer that has not stepped yet.
    The trust ratio needs gradient norms, so the schedule raises an error at the start under DeepSpeed and FSDP1.

    Source: You et al. 2017 (arXiv 1708.03888)
    Example: {warmup: "10%", after: polynomial_floor, after_kwargs: {power: 2.0}}
    """
    steps = as_steps(warmup, num_training_steps, name="warmup")
    if not steps:
        raise ArgumentError("warmup", "1 step or more, because lars_warmup acts during the warmup", warmup)
    floor = _given(floor_ratio=floor_ratio, min_lr=min_lr)
    rest = _following(after, after_kwargs or {}, floor, num_training_steps, steps, units)
    rise = phases.warmup(steps, to=rest.phases[0].start or PEAK, lars=trust_coefficient)
    return ScheduleSpec((rise, *rest.phases), rest.floor_ratio, rest.min_lr)


@register("phases")
def from_phases(*, phases: Annotated[Any, PhasesReader()]) -> ScheduleSpec:
    """Any curve, written in the phase language.

    Formula: as written

    `phases` is text or a list of mappings. If it starts with a warmup, the Trainer's `warmup_steps` must be 0.

    Source: the phase language of hf_sched
    Example: {phases: "warmup 5% | hold | decay 20% 1-sqrt to 0.1"}
    From torch: ConstantLR(factor=1.0) -> {phases: hold}
    From transformers: constant_with_warmup -> {phases: hold}
    From optax: constant_schedule(peak) -> {phases: hold}
    """
    return phases  # type: ignore[no-any-return]


def _given(**arguments: float | None) -> dict[str, float]:
    return {name: value for name, value in arguments.items() if value is not None}


def _steps_from_the_peak(num_training_steps: int, num_warmup_steps: int) -> int:
    """The steps after the one that trains at the peak: the last one of the warmup, or step 0 without a warmup."""
    return num_training_steps - max(num_warmup_steps, 1)


def _following(
    name: str | None,
    after_kwargs: Mapping[str, Any],
    floor: dict[str, float],
    num_training_steps: int | None,
    num_warmup_steps: int,
    units: StepUnits,
) -> ScheduleSpec:
    """The phases of another schedule after its warmup."""
    for key, value in floor.items():
        if after_kwargs.get(key) is not None:
            rule = f"is given twice: `after_kwargs` has `{key}` {after_kwargs[key]!r}"
            raise ArgumentError(key, received=value, hint="give one of them", rule=rule)
    text, arguments = name, {**after_kwargs, **floor}
    if text is not None:
        name, arguments = schedule_text.read(text, arguments, argument="after")
    if name is None:
        if arguments:
            raise ArgumentError("after", f"the name of the schedule that takes {arguments}", None)
        return ScheduleSpec((phases.hold(),))
    known = [other for other in registry.available() if other not in ("gradual_warmup", "lars_warmup")]
    if name not in known:
        hint = suggest(name, known, f"there are {', '.join(known)}")
        raise ArgumentError("after", "a schedule of hf_sched without a special warmup", text, hint)
    try:
        spec = registry.entry(name).spec(num_training_steps, num_warmup_steps, arguments, units)
    except ArgumentError as error:
        culprit = (
            "warmup" if error.name == "num_warmup_steps" else error.name if error.name in floor else "after_kwargs"
        )
        raise type(error)(culprit, rule=f"cannot be used for `after` {name!r}: {error}") from None
    if spec.horizon is not None:
        rule = f"has a `horizon` for `after` {name!r}"
        raise ArgumentError("after_kwargs", rule=rule, hint="give `horizon` beside `after`, for both parts")
    return replace(spec, phases=spec.phases[1:]) if num_warmup_steps else spec
