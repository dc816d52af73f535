"""The catalogue: each named schedule is a function that returns its phases.

What all of them share is not written here: the registry puts the Trainer's warmup in front (except where a schedule
takes a `warmup` of its own), gives each the arguments `floor_ratio` and `min_lr`, and checks every argument by its
annotation. A new schedule is one more function, just as a user's own would be.

The docstrings are the reference that `docs/schedules.md` is made from. In their formulas `peak` is the learning rate
of a parameter group, `floor` its floor, `t` the optimizer steps since the one that trained at the peak, and `T` how
many there are from there to the last one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from hf_sched.schedules import phases, registry
from hf_sched.schedules import restart_cycles as cycles
from hf_sched.schedules.phase_parser import PhasesReader
from hf_sched.schedules.phases import PEAK, Level, Phase, ScheduleSpec
from hf_sched.schedules.registry import has_floor, no_floor, register
from hf_sched.schedules.shapes import DECAY_SHAPES, WARMUP_SHAPES, Shape, ShapeReader
from hf_sched.schedules.validation import (
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
    as_steps,
    did_you_mean,
    format_value,
)

DEFAULT_CYCLES = 4
_FLOORS = ("floor_ratio", "min_lr")

AWarmupShape = Annotated[str | Shape, ShapeReader(WARMUP_SHAPES)]
ADecayShape = Annotated[str | Shape, ShapeReader(DECAY_SHAPES)]
Factor = Annotated[float, Number(0, 1, above_low=True)]
"""What a learning rate is multiplied by to fall: above 0, and 1 at most."""


@register("cosine_floor", floor_ratio=0.1)
def cosine_floor() -> list[Phase]:
    """Half a cosine from the peak to a floor.

    Formula: floor + (peak - floor) * (1 + cos(pi * t / T)) / 2

    By default the floor is a tenth of the peak, as in Hoffmann et al. 2022.

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983); Hoffmann et al. 2022 (arXiv 2203.15556)
    Example: {floor_ratio: 0.1}
    From torch: CosineAnnealingLR(T_max=T, eta_min=1e-5) -> {min_lr: 1.0e-5}
    From transformers: cosine_with_min_lr, {min_lr_rate: 0.1} -> {floor_ratio: 0.1}
    From transformers: cosine_warmup_with_min_lr, {min_lr_rate: 0.1} -> {floor_ratio: 0.1}
    From timm: CosineLRScheduler(t_initial=T, lr_min=1e-5) -> {min_lr: 1.0e-5}
    From optax: cosine_decay_schedule(peak, T, alpha=0.1) -> {floor_ratio: 0.1}
    From MiniMind: lr * (0.1 + 0.45 * (1 + math.cos(math.pi * current_step / total_steps))) -> {floor_ratio: 0.1}
    """
    return [phases.decay(shape="cosine")]


@register("warmup_cosine")
def warmup_cosine(
    *, warmup: Duration = "5%", warmup_shape: AWarmupShape = "linear", warmup_start_ratio: Ratio = 0.0
) -> list[Phase]:
    """A warmup of any shape, then half a cosine to the floor.

    Formula: peak * (s + (1 - s) * shape((k + 1) / W)) at step k of the W warmup steps, s = warmup_start_ratio;
        then floor + (peak - floor) * (1 + cos(pi * t / T)) / 2

    `warmup` holds where the Trainer gives no warmup. `warmup_shape` is linear, cosine, sqrt, exponential (saturating)
    or geometric (a constant ratio a step, which needs a start above 0).

    Source: Goyal et al. 2017 (arXiv 1706.02677); Loshchilov and Hutter 2016 (arXiv 1608.03983)
    Example: {warmup: "10%", warmup_shape: cosine}
    From torch: SequentialLR([LinearLR(0.1, total_iters=W), CosineAnnealingLR(T)], [W]) ->
        {warmup: W, warmup_start_ratio: 0.1}
    From transformers: cosine -> {}
    From transformers: cosine_warmup_with_min_lr, {warmup_lr_rate: 0.1, min_lr_rate: 0.2} ->
        {warmup_start_ratio: 0.1, floor_ratio: 0.2}
    From timm: CosineLRScheduler(t_initial=T, warmup_t=W, warmup_lr_init=0.1 * peak, warmup_prefix=True) ->
        {warmup: W, warmup_start_ratio: 0.1}
    From optax: warmup_cosine_decay_schedule(0.1 * peak, peak, W, N) -> {warmup: W, warmup_start_ratio: 0.1}
    """
    if Shape("geometric") == warmup_shape and not 0 < warmup_start_ratio < 1:
        raise ValueError(
            "`warmup_start_ratio` must be above 0 and below 1 for the `warmup_shape` 'geometric', "
            f"received {warmup_start_ratio!r}"
        )
    return [phases.warmup(warmup, warmup_shape, start=warmup_start_ratio), phases.decay(shape="cosine")]


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

    Formula: floor + (peak * peak_multiplier ** i - floor) * (1 + cos(pi * p)) / 2
        in cycle i, which has n = n_0 * cycle_multiplier ** i steps; at its step j p = j / (n - 1),
        or (j + 1) / n in the first cycle behind a warmup

    `num_cycles`, 4 by default, fill the run exactly. With `first_cycle` instead, a last cycle that would be cut off is
    merged into the one before it, and a warning says so. With `rewarmup` each cycle but the first climbs to its peak
    over that many of its steps, rather than jumping there. The cycles of torch, transformers and timm end one step
    before their floor; these end on it.

    Source: Loshchilov and Hutter 2016 (arXiv 1608.03983)
    Example: {num_cycles: 3, cycle_multiplier: 2.0, peak_multiplier: 0.7}
    From torch: CosineAnnealingWarmRestarts(T_0=100, T_mult=2) -> {first_cycle: 100, cycle_multiplier: 2}
    From transformers: cosine_with_restarts, {num_cycles: 3} -> {num_cycles: 3, cycle_multiplier: 1}
    From timm: CosineLRScheduler(t_initial=100, cycle_mul=2, cycle_decay=0.7, cycle_limit=3) ->
        {first_cycle: 100, cycle_multiplier: 2, peak_multiplier: 0.7}
    From optax: sgdr_schedule([dict(init_value=0, peak_value=peak, warmup_steps=W, decay_steps=W + 150),
        dict(init_value=0, peak_value=peak, warmup_steps=10, decay_steps=150)]) ->
        {num_cycles: 2, cycle_multiplier: 1, rewarmup: 10}
    """
    if num_cycles is not None and first_cycle is not None:
        raise ValueError(
            f"the cycles are given twice: give either `num_cycles` or `first_cycle`, received {num_cycles!r} and "
            f"{format_value(first_cycle)}"
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
            laid += [phases.warmup(climb, to=top), phases.decay(steps - climb, "cosine")]
        else:
            laid.append(phases.restart(steps, "cosine", start=top))
    return laid


@register("cosine_cyclic")
def cosine_cyclic(
    *, num_training_steps: int, num_warmup_steps: int, half_period: Period, peak_multiplier: Positive = 1.0
) -> list[Phase]:
    """A cosine wave, down to the floor and up again, without a jump.

    Formula: floor + (peak - floor) * (1 + cos(pi * t / half_period)) / 2

    It is what torch's CosineAnnealingLR does past its T_max. Each crest is `peak_multiplier` times as high as the
    one before it. The run ends on the floor: where it would end elsewhere, the last descent is made shorter or longer
    (half to two and a half times as long), and a warning says so.

    Source: torch.optim.lr_scheduler.CosineAnnealingLR
    Example: {half_period: "19%", peak_multiplier: 0.7}
    From torch: CosineAnnealingLR(T_max=100) -> {half_period: 100}
    """
    half = as_steps(half_period, num_training_steps)
    first = half + (not num_warmup_steps)  # without a warmup the crest is a step of its own
    steps = num_training_steps - num_warmup_steps
    if half < 1 or first > steps:
        raise ValueError(
            f"`half_period` must be 1 step or more and fit into the run, which has "
            f"{_steps_from_the_peak(num_training_steps, num_warmup_steps)} steps from the peak to its end, received "
            f"{half_period!r} ({half} steps)"
        )
    waves, left = divmod(steps - first, 2 * half)
    descents = [first, *[half] * waves]
    if 2 * (left - half) >= half:
        descents.append(left - half)
    else:
        descents[-1] += left
    if left:
        _warn(
            "cosine_cyclic",
            f"the run does not end on a trough, so that the last descent has {descents[-1]} steps rather than {half}",
        )
    laid = [phases.decay(descents[0], "cosine")]
    for i, descent in enumerate(descents[1:], 1):
        crest = _power("peak_multiplier", peak_multiplier, i)
        laid += [phases.warmup(half, "cosine", to=crest), phases.decay(descent, "cosine")]
    return laid


@register("minimind", floor_ratio=0.1)
def minimind() -> list[Phase]:
    """MiniMind's cosine, which starts at 1.1 times the learning rate and ends at a tenth of it.

    Formula: floor + peak * (1 + cos(pi * t / T)) / 2

    The exception to the rule that a schedule starts at the peak: it starts at the peak plus the floor, and a warmup
    climbs to there. Newer versions of MiniMind start at the peak: for them take `cosine_floor`.

    Source: MiniMind (github.com/jingyaogong/minimind), get_lr of its older versions
    Example: {}
    From MiniMind: lr / 10 + 0.5 * lr * (1 + math.cos(math.pi * current_step / total_steps)) -> {}
    """
    return [phases.decay(shape="cosine", start=Level(1.0, 1.0))]


@register("linear_with_warmup")
def linear_with_warmup() -> list[Phase]:
    """A straight line from the peak to the floor, after the Trainer's warmup.

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
    """A constant ratio from step to step.

    Formula: peak * gamma ** t, or peak * exp(-decay_rate * t), or peak * floor_ratio ** (t / T)

    Give one of `gamma`, `decay_rate` and `floor_ratio`, which reaches that share of the peak on the last step.

    Source: torch.optim.lr_scheduler.ExponentialLR
    Example: {floor_ratio: 0.01}
    From torch: ExponentialLR(gamma=0.999) -> {gamma: 0.999}
    From timm: StepLRScheduler(decay_t=1, decay_rate=0.999) -> {gamma: 0.999}
    From optax: exponential_decay(peak, 1, 0.999) -> {gamma: 0.999}
    """
    given = {"gamma": gamma, "decay_rate": decay_rate, "floor_ratio": floor_ratio}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        received = ", ".join(f"{name}: {value!r}" for name, value in given.items()) or "none of them"
        raise ValueError(
            f"exponential takes exactly one of `gamma`, `decay_rate` and `floor_ratio`, received {received}"
        )
    steps = _steps_from_the_peak(num_training_steps, num_warmup_steps)
    if floor_ratio is not None:
        return [phases.hold() if floor_ratio == 1 else phases.decay(shape="geometric")]
    rate = steps * (decay_rate if gamma is None else -math.log(gamma))  # type: ignore[operator]
    if rate == math.inf:
        raise ValueError(f"`decay_rate` must not grow beyond all numbers in {steps} steps, received {decay_rate!r}")
    return [phases.decay(shape=Shape("exponential", rate), to=math.exp(-rate)) if rate else phases.hold()]


@register("step", floor_ratio=None)
def step(*, num_training_steps: int, num_warmup_steps: int, step_size: Period, gamma: Factor = 0.1) -> list[Phase]:
    """Down by a factor after every so many steps.

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
    num_training_steps: int,
    num_warmup_steps: int,
    steps_per_epoch: float | None,
    milestones: Annotated[list[Any], ListOf(DurationReader(above_zero=True))],
    gamma: Factor = 0.1,
) -> list[Phase]:
    """Down by a factor at each milestone.

    Formula: peak * gamma ** (how many milestones lie at or before optimizer step k)

    Milestones are optimizer steps of the run, counted from 0 with the warmup, shares of the run or epochs.

    Source: torch.optim.lr_scheduler.MultiStepLR
    Example: {milestones: ["50%", "75%"], gamma: 0.1}
    From torch: MultiStepLR(milestones=[300, 600], gamma=0.1) -> {milestones: [300, 600], gamma: 0.1}
    From timm: MultiStepLRScheduler(decay_t=[301, 601], decay_rate=0.1) -> {milestones: [300, 600], gamma: 0.1}
    From optax: piecewise_constant_schedule(peak, {300: 0.1, 600: 0.1}) -> {milestones: [300, 600], gamma: 0.1}
    """
    at = [as_steps(milestone, num_training_steps, steps_per_epoch, "milestones") for milestone in milestones]
    for i, (before, here) in enumerate(zip([num_warmup_steps, *at], at, strict=False)):
        if not before < here < num_training_steps:
            raise ValueError(
                f"`milestones` must rise, after the {num_warmup_steps} steps of warmup and before the end of the run "
                f"({num_training_steps} steps), received {format_value(milestones[i])} (step {here}) behind step {before}"
            )
    stops = [*at, num_training_steps]
    return [phases.hold(at[0] - num_warmup_steps)] + [
        phases.hold(stop - here, at=gamma**i) for i, (here, stop) in enumerate(zip(at, stops[1:], strict=True), 1)
    ]


@register("polynomial_floor")
def polynomial_floor(*, power: Positive = 1.0) -> list[Phase]:
    """A power of the share of the run that is left.

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
def wsd(*, decay: Period = "20%", decay_shape: ADecayShape = "1-sqrt") -> list[Phase]:
    """Warmup, stable, decay: the peak is held until a cooldown at the end.

    Formula: peak until the last D = decay steps; then floor + (peak - floor) * (1 - sqrt((j + 1) / D))
        at step j of these

    The peak is held for as long as warmup and decay leave. `decay_shape` may be any shape of a decay. In transformers
    `min_lr_ratio` is where the warmup starts, too; here it is only the floor.

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
    *,
    num_training_steps: int,
    num_warmup_steps: int,
    timescale: Period | None = None,
    cooldown: Period = "20%",
) -> list[Phase]:
    """The inverse square root of the step, then a straight line to the floor.

    Formula: peak * sqrt(timescale / (timescale + t)), and a line to the floor over the last `cooldown` steps

    `timescale` is by default the length of the warmup, as in Vaswani et al. 2017. The last step is at the floor,
    however short the cooldown.

    Source: Vaswani et al. 2017 (arXiv 1706.03762); Zhai et al. 2021 (arXiv 2106.04560)
    Example: {timescale: "10%", cooldown: "20%"}
    From transformers: inverse_sqrt, {timescale: 1000} -> {timescale: 1000, cooldown: 1}
    """
    scale = num_warmup_steps if timescale is None else as_steps(timescale, num_training_steps)
    if scale < 1:
        raise ValueError(
            f"`timescale` must be 1 step or more, received {format_value(timescale)}; it is the warmup's length where there "
            "is one"
        )
    last = max(as_steps(cooldown, num_training_steps), 1)
    steps = num_training_steps - num_warmup_steps - last
    if steps < 0:
        raise ValueError(
            f"`cooldown` must leave the warmup its {num_warmup_steps} of {num_training_steps} steps, received "
            f"{cooldown!r} ({last} steps)"
        )
    length = (steps - (not num_warmup_steps)) / scale
    if length <= 0:
        return [phases.hold(steps), phases.decay(last)]
    return [phases.decay(steps, Shape("inverse_sqrt", length), to=(1.0 + length) ** -0.5), phases.decay(last)]


@register("cosine_constant")
def cosine_constant(
    *,
    decay: Period = "60%",
    constant_ratio: Ratio = 0.1,
    anneal: Period = "10%",
    anneal_shape: ADecayShape = "linear",
) -> list[Phase]:
    """A cosine to a constant that may go on for ever, and an anneal at the end.

    Formula: c + (peak - c) * (1 + cos(pi * t / D)) / 2 over the first D = decay steps, c = constant_ratio * peak;
        then c; then from c to the floor over the last `anneal` steps

    `anneal_shape` may be any shape of a decay.

    Source: Ibrahim et al. 2024 (arXiv 2403.08763), whose anneal is exponential
    Example: {decay: "60%", constant_ratio: 0.1, anneal: "10%"}
    """
    return [phases.decay(decay, "cosine", to=constant_ratio), phases.hold(), phases.decay(anneal, anneal_shape)]


@register("one_cycle", floor_ratio=None)
def one_cycle(*, warmup: Duration = "30%", start_ratio: Ratio = 0.04, final_ratio: Ratio = 1e-4) -> list[Phase]:
    """One long climb by a cosine, and one long fall.

    Formula: from start_ratio * peak to peak over `warmup` steps, then to final_ratio * peak, both half a cosine

    Both ratios are shares of the peak. The `final_div_factor` of torch and optax divides the start.

    Source: Smith and Topin 2017 (arXiv 1708.07120); Smith 2018 (arXiv 1803.09820); by a cosine as in torch and optax
    Example: {warmup: "30%", start_ratio: 0.04}
    From torch: OneCycleLR(max_lr=peak, total_steps=N, pct_start=0.3, div_factor=25, final_div_factor=1e4) ->
        {warmup: "30%", start_ratio: 0.04, final_ratio: 4.0e-6}
    From optax: cosine_onecycle_schedule(N, peak, pct_start=0.3, div_factor=25, final_div_factor=1e4) ->
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
    num_training_steps: int,
    steps_per_epoch: float | None,
    warmup: Duration = "5%",
    multiplier: Annotated[float, Number(1)] = 1.0,
    after: str | None = None,
    after_kwargs: Keywords | None = None,
    floor_ratio: Ratio | None = None,
    min_lr: Rate | None = None,
) -> ScheduleSpec:
    """A warmup beyond the peak, then any other schedule from there.

    Formula: peak * (1 + (multiplier - 1) * (k + 1) / W) at step k of the W warmup steps (from 0 where multiplier is 1);
        then `after` with multiplier * peak for its peak

    `after` is the name of a schedule of the catalogue, `after_kwargs` its arguments; without it the level that was
    reached is held. The floor stays a share of the peak, not of its multiple.

    Source: Goyal et al. 2017 (arXiv 1706.02677)
    Example: {multiplier: 2.0, warmup: "10%", after: cosine_floor}
    From pytorch-gradual-warmup-lr: GradualWarmupScheduler(multiplier=8, total_epoch=W,
        after_scheduler=CosineAnnealingLR(T)) -> {multiplier: 8, warmup: W, after: warmup_cosine}
    """
    steps = _warmup_steps(warmup, num_training_steps)
    rest = _after(after, after_kwargs, floor_ratio, min_lr, num_training_steps, steps, steps_per_epoch)
    if not steps and multiplier > 1:
        raise ValueError(
            f"`warmup` must have a step or more to reach `multiplier` {multiplier!r}, received {format_value(warmup)}"
        )
    higher = [phase.scaled(multiplier) for phase in rest.phases]
    top = higher[0].start or PEAK.scaled(multiplier)
    rise = phases.warmup(steps, start=1.0 if multiplier > 1 else 0.0, to=top)
    return ScheduleSpec((rise, *higher), rest.floor_ratio, rest.min_lr)


@register("lars_warmup")
def lars_warmup(
    *,
    num_training_steps: int,
    steps_per_epoch: float | None,
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

    `after` and `after_kwargs` are those of gradual_warmup. The curve that is shown is the one for r = 1. Each parameter
    tensor is a layer, with a parameter group of its own: the scheduler splits the groups of an optimizer that has not
    yet stepped. It reads the gradient norms, so it does not work under DeepSpeed or FSDP1, and says so at the start.

    Source: You et al. 2017 (arXiv 1708.03888)
    Example: {warmup: "10%", after: polynomial_floor, after_kwargs: {power: 2.0}}
    """
    steps = _warmup_steps(warmup, num_training_steps)
    if not steps:
        raise ValueError(
            f"`warmup` must have a step or more for lars_warmup to act in, received {format_value(warmup)}"
        )
    rest = _after(after, after_kwargs, floor_ratio, min_lr, num_training_steps, steps, steps_per_epoch)
    rise = phases.warmup(steps, to=rest.phases[0].start or PEAK, lars=trust_coefficient)
    return ScheduleSpec((rise, *rest.phases), rest.floor_ratio, rest.min_lr)


@register("phases")
def spelt_out(
    *,
    phases: Annotated[Any, PhasesReader()],
    floor_ratio: Ratio | None = None,
    min_lr: Rate | None = None,
) -> ScheduleSpec:
    """Any curve, spelt out in the phase language.

    Formula: as written

    `phases` is text, or a list of mappings. A warmup of its own stands for the Trainer's.

    Source: hf_sched.language
    Example: {phases: "warmup 5% | hold | decay 20% 1-sqrt to 0.1"}
    From torch: ConstantLR(factor=1.0) -> {phases: hold}
    From transformers: constant_with_warmup -> {phases: hold}
    From optax: constant_schedule(peak) -> {phases: hold}
    """
    given = {name: value for name, value in (("floor_ratio", floor_ratio), ("min_lr", min_lr)) if value is not None}
    if not given:
        return phases  # type: ignore[no-any-return]
    if phases.floor_ratio is not None or phases.min_lr is not None:
        raise ValueError(f"the floor is given twice: in `phases` and as `{next(iter(given))}` ({given})")
    if not has_floor(phases.phases):
        raise no_floor("the curve of `phases`", next(iter(given)))
    return ScheduleSpec(phases.phases, **given)


def _steps_from_the_peak(num_training_steps: int, num_warmup_steps: int) -> int:
    """From the step that trains at the peak, the last one of a warmup or the first one of all, to the last one."""
    return num_training_steps - max(num_warmup_steps, 1)


def _warmup_steps(warmup: Any, num_training_steps: int) -> int:
    steps = as_steps(warmup, num_training_steps, name="warmup")
    if steps >= num_training_steps:
        raise ValueError(
            f"`warmup` must be shorter than the run of {num_training_steps} steps, received {format_value(warmup)} "
            f"({steps} steps)"
        )
    return steps


def _after(
    name: str | None,
    arguments: Mapping[str, Any] | None,
    floor_ratio: float | None,
    min_lr: float | None,
    num_training_steps: int,
    num_warmup_steps: int,
    steps_per_epoch: float | None,
) -> ScheduleSpec:
    """What comes behind a warmup: the spec of another schedule, without its warmup."""
    floors = {key: value for key, value in (("floor_ratio", floor_ratio), ("min_lr", min_lr)) if value is not None}
    given = dict(arguments or {})
    if name in ("gradual_warmup", "lars_warmup"):  # their warmup is what they are, and it would be dropped
        raise ValueError(f"`after` must be a schedule without a special warmup of its own, received {name!r}")
    if name is not None and name not in registry.available():
        near = [known for known in registry.available() if known.startswith(name)]
        hint = f"; did you mean '{min(near, key=len)}'?" if near and name else did_you_mean(name, registry.available())
        raise ValueError(
            f"`after` must be the name of a schedule of hf_sched, since only those can follow a warmup, received "
            f"{name!r}{hint} There are {', '.join(registry.available())}."
        )
    if name is None:
        if given or floors:
            raise ValueError(f"`after` must name a schedule for the arguments {given | floors}, received None")
        return ScheduleSpec((phases.hold(),))
    twice = [key for key in given if given[key] is not None and (key in floors or (floors and key in _FLOORS))]
    if twice:
        raise ValueError(f"the floor is given twice: in `after_kwargs` ({twice[0]}) and as {floors}")
    try:
        spec = registry.entry(name).spec(num_training_steps, num_warmup_steps, given | floors, steps_per_epoch)
    except ValueError as error:
        raise type(error)(f"`after` ({name}): {error}") from None
    rest = spec.phases[1:] if spec.phases[0].kind == "warmup" else spec.phases
    if not rest:
        raise ValueError(f"`after` ({name}) must have a phase after its warmup, received {given!r}")
    return ScheduleSpec(rest, spec.floor_ratio, spec.min_lr)


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
        "cosine_restarts",
        f"{DEFAULT_CYCLES} cycles do not fit into {total} steps, so there are {len(lengths)}; set `num_cycles` to "
        "choose",
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
            "cosine_restarts",
            f"the next cycle would have {following} steps, but only {left} are left: they are merged into the cycle "
            f"before it, number {len(lengths)}, which now has {lengths[-1]} steps",
        )
    return lengths


def _power(name: str, base: float, exponent: int) -> float:
    try:
        return base**exponent
    except OverflowError:
        raise ValueError(f"`{name}` {base!r} grows beyond all numbers by cycle {exponent + 1}: lower it") from None


def _warn(name: str, message: str) -> None:
    warnings.warn(f"{name}: {message}", UserWarning, stacklevel=2)
