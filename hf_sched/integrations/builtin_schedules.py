"""transformers' own schedules: what they take, and the curve they play, so that it can be shown and compared here.

The formulas are those of `transformers.optimization` (5.23), with what ours do not share: a warmup trains step 0 at a
learning rate of 0, and the end of a decay would be reached one step after the run. Nothing here imports transformers.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.validation import Number, OneOf, Positive, Rate, Ratio, Reader, Whole, did_you_mean, reader_of

FloatArray = npt.NDArray[np.float64]
_Shape = Annotated[Literal["linear", "cosine", "1-sqrt"], OneOf(("linear", "cosine", "1-sqrt"))]


@dataclass(frozen=True)
class Run:
    """What a schedule is told of the run it plays in."""

    steps: FloatArray
    """The optimizer steps requested, counted from 0."""
    warmup: int
    total: int
    peak: float

    def after_warmup(self, decay: FloatArray) -> FloatArray:
        """A linear warmup from 0, then `decay`."""
        return np.where(self.steps < self.warmup, self.steps / max(1, self.warmup), decay)

    @property
    def progress(self) -> FloatArray:
        """The share of the steps behind the warmup that has passed."""
        return (self.steps - self.warmup) / max(1, self.total - self.warmup)


@dataclass(frozen=True)
class Builtin:
    """One of transformers' own schedules."""

    name: str
    play: Callable[..., FloatArray | None]
    """The shares of the peak at the steps of a `Run`; None where they depend on a metric."""
    arguments_ignored: bool = False
    """Whether transformers passes `lr_scheduler_kwargs` over without a word."""
    has_warmup: bool = True

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """What `lr_scheduler_kwargs` may hold."""
        parameters = inspect.signature(self.play).parameters.values()
        return {parameter.name: parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}

    def reader(self, name: str) -> Reader:
        """What checks an argument."""
        return reader_of(typing.get_type_hints(self.play, include_extras=True)[name]) or Reader()

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, checked; those that are left out stay so.

        Raises:
            ValueError: One is unknown or missing, or has a wrong value.
        """
        for name in arguments:
            if name not in self.parameters:
                takes = f" It takes {', '.join(self.parameters)}." if self.parameters else " It takes none."
                raise ValueError(
                    f"{self.name} has no argument `{name}` (received {arguments[name]!r})"
                    f"{did_you_mean(name, self.parameters)}{takes}"
                )
        given = {name: value for name, value in arguments.items() if value is not None}
        for name, parameter in self.parameters.items():
            if parameter.default is parameter.empty and name not in given:
                raise ValueError(f"{self.name} needs the argument `{name}`: write it in `lr_scheduler_kwargs`")
        return {name: self.reader(name)(name, value) for name, value in given.items()}


def curve(
    name: str, *, num_training_steps: int, num_warmup_steps: int = 0, peak: float = 1.0, **arguments: Any
) -> FloatArray | None:
    """The learning rates of a run under one of transformers' own schedules, for the first kind of parameter group.

    Args:
        name: One of `BUILTIN`.
        num_training_steps: Optimizer steps of the run, 1 or more.
        num_warmup_steps: Optimizer steps of warmup; schedules without a warmup do nothing with them.
        peak: `learning_rate`.
        **arguments: What `lr_scheduler_kwargs` may hold.

    Returns:
        Float64 of shape (num_training_steps,); None if the schedule follows a metric.

    Raises:
        ValueError: The name is none of them, or an argument does not fit.
    """
    if name not in BUILTIN:
        raise ValueError(f"{name!r} is no schedule of transformers{did_you_mean(name, BUILTIN)}")
    total = Whole(1)("num_training_steps", num_training_steps)
    run = Run(
        np.arange(total, dtype=np.float64),
        Whole()("num_warmup_steps", num_warmup_steps),
        total,
        Number(0)("peak", peak),
    )
    schedule = BUILTIN[name]
    shares = schedule.play(run, **schedule.read(arguments))
    return None if shares is None else shares * run.peak


def _constant(run: Run) -> FloatArray:
    """The peak from the first step to the last; it has no warmup.

    Formula: peak
    """
    return np.ones_like(run.steps)


def _constant_with_warmup(run: Run) -> FloatArray:
    """The peak, behind a linear warmup.

    Formula: peak * min(1, k / W)
    """
    return run.after_warmup(np.ones_like(run.steps))


def _linear(run: Run) -> FloatArray:
    """A straight line to 0, behind a linear warmup.

    Formula: peak * (T - k) / (T - W)
    """
    return run.after_warmup(np.maximum(0.0, (run.total - run.steps) / max(1, run.total - run.warmup)))


def _cosine(run: Run, *, num_cycles: Annotated[float, Number()] = 0.5) -> FloatArray:
    """Half a cosine to 0, behind a linear warmup; with more than half a cycle it rises again.

    Formula: peak * (1 + cos(2 pi num_cycles (k - W) / (T - W))) / 2
    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), without the restarts
    """
    return run.after_warmup(np.maximum(0.0, _wave(num_cycles * run.progress)))


def _cosine_with_restarts(run: Run, *, num_cycles: Annotated[int, Whole(1)] = 1) -> FloatArray:
    """Cosines to 0 one after another, each from the peak, behind a linear warmup.

    Formula: peak * (1 + cos(pi ((num_cycles (k - W) / (T - W)) mod 1))) / 2
    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983)
    """
    return run.after_warmup(np.where(run.progress >= 1, 0.0, _wave((num_cycles * run.progress) % 1.0 / 2)))


def _polynomial(run: Run, *, lr_end: Rate = 1e-7, power: Positive = 1.0) -> FloatArray:
    """A power of the share of the run that is left, down to a learning rate, behind a linear warmup.

    Formula: lr_end + (peak - lr_end) * ((T - k) / (T - W))^power
    """
    if lr_end >= run.peak:
        raise ValueError(f"`lr_end` must be less than the learning rate ({run.peak:g}), received {lr_end!r}")
    left = np.clip(1 - run.progress, 0.0, None)
    return run.after_warmup(((run.peak - lr_end) * left**power + lr_end) / run.peak)


def _inverse_sqrt(run: Run, *, timescale: Annotated[int | None, Whole(1)] = None) -> FloatArray:
    """The inverse square root of the step, behind a linear warmup.

    Formula: peak / sqrt((k - W + timescale) / timescale), where timescale is W, or 10000 without a warmup
    Source: Vaswani et al. 2017 (arXiv 1706.03762)
    """
    scale = timescale or run.warmup or 10_000
    return run.after_warmup(1 / np.sqrt(np.maximum(run.steps - run.warmup + scale, 1) / scale))


def _cosine_with_min_lr(
    run: Run,
    *,
    num_cycles: Annotated[float, Number()] = 0.5,
    min_lr: Rate | None = None,
    min_lr_rate: Ratio | None = None,
) -> FloatArray:
    """Half a cosine to `min_lr`, or to the share `min_lr_rate` of the peak, behind a linear warmup.

    Formula: min_lr + (peak - min_lr) * (1 + cos(2 pi num_cycles (k - W) / (T - W))) / 2
    Example: {min_lr_rate: 0.1}
    """
    least = _min_lr_rate(run, min_lr, min_lr_rate)
    return run.after_warmup(np.maximum(0.0, _wave(num_cycles * run.progress) * (1 - least) + least))


def _cosine_warmup_with_min_lr(
    run: Run,
    *,
    num_cycles: Annotated[float, Number()] = 0.5,
    min_lr: Rate | None = None,
    min_lr_rate: Ratio | None = None,
    warmup_lr_rate: Ratio | None = None,
) -> FloatArray:
    """As `cosine_with_min_lr`, counting steps from 1; its warmup begins at `warmup_lr_rate`, by default at peak / W.

    Formula: min_lr + (peak - min_lr) * (1 + cos(2 pi num_cycles (k + 1 - W) / (T - W))) / 2
    Example: {min_lr_rate: 0.1}
    """
    least = _min_lr_rate(run, min_lr, min_lr_rate)
    if warmup_lr_rate is None:
        warmup = (run.steps + 1) / max(1, run.warmup)
    else:
        warmup = warmup_lr_rate + (1 - warmup_lr_rate) * run.steps / max(1, run.warmup - 1)
    progress = (run.steps - run.warmup + 1) / max(1, run.total - run.warmup)
    decay = np.maximum(0.0, _wave(num_cycles * progress) * (1 - least) + least)
    return np.where(run.steps < run.warmup, warmup, decay)


def _warmup_stable_decay(
    run: Run,
    *,
    num_decay_steps: Annotated[int, Whole()],
    num_stable_steps: Annotated[int | None, Whole()] = None,
    warmup_type: _Shape = "linear",
    decay_type: _Shape = "cosine",
    min_lr_ratio: Ratio = 0.0,
    num_cycles: Annotated[float, Number()] = 0.5,
) -> FloatArray:
    """A warmup from `min_lr_ratio` of the peak, the peak, and a decay to `min_lr_ratio` of it.

    Formula: min_lr + (peak - min_lr) * f((k - W - num_stable_steps) / num_decay_steps), f by `decay_type`
    Example: {num_decay_steps: 200}
    Source: Hu et al. 2024 (arXiv 2404.06395)
    """
    stable = run.total - run.warmup - num_decay_steps if num_stable_steps is None else num_stable_steps
    rising = np.clip(run.steps / max(1, run.warmup), 0, 1)
    falling = np.clip((run.steps - run.warmup - stable) / max(1, num_decay_steps), 0, 1)
    warmup = {"linear": rising, "cosine": 1 - _wave(rising / 2), "1-sqrt": 1 - np.sqrt(1 - rising)}[warmup_type]
    decay = {"linear": 1 - falling, "cosine": _wave(num_cycles * falling), "1-sqrt": 1 - np.sqrt(falling)}[decay_type]
    lifted = [np.maximum(0.0, part * (1 - min_lr_ratio) + min_lr_ratio) for part in (warmup, decay)]
    ends = np.cumsum([run.warmup, stable, num_decay_steps])
    return np.select([run.steps < end for end in ends], [lifted[0], np.ones_like(rising), lifted[1]], min_lr_ratio)


def _reduce_lr_on_plateau(
    run: Run,
    *,
    mode: Annotated[str, OneOf(("min", "max"))] = "min",
    factor: Annotated[float, Number(0, 1)] = 0.1,
    patience: Annotated[int, Whole()] = 10,
    threshold: Annotated[float, Number()] = 1e-4,
    threshold_mode: Annotated[str, OneOf(("rel", "abs"))] = "rel",
    cooldown: Annotated[int, Whole()] = 0,
    min_lr: Rate = 0.0,
    eps: Rate = 1e-8,
) -> None:
    """Down by a factor when the evaluated metric has stopped improving; its curve is known only afterwards."""


def _greedy(
    run: Run,
    *,
    mode: Annotated[str, OneOf(("min", "max"))] = "min",
    factor: Annotated[float, Number(0, 1)] = 0.95,
    patience: Annotated[int, Whole()] = 10,
    threshold: Annotated[float, Number()] = 1e-6,
    threshold_mode: Annotated[str, OneOf(("rel", "abs"))] = "abs",
    cooldown: Annotated[int, Whole()] = 0,
    warmup: Annotated[int, Whole()] = 0,
    min_lr: Rate = 1e-3,
    max_lr: Rate = 1.0,
    eps: Rate = 1e-8,
    verbose: bool = False,
    smooth: bool = False,
    window_size: Annotated[int, Whole(1)] = 50,
    reset_start: Annotated[int, Whole()] = 500,
) -> None:
    """Up while the loss improves, down when it does not; its curve is known only afterwards.

    Source: GreedyLR, 2025 (arXiv 2512.14527)
    """


def _wave(cycles: FloatArray) -> FloatArray:
    """A cosine from 1 at whole cycles to 0 at half ones."""
    return 0.5 * (1 + np.cos(2 * np.pi * cycles))


def _min_lr_rate(run: Run, min_lr: float | None, min_lr_rate: float | None) -> float:
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError(
            f"give either `min_lr` or `min_lr_rate` in `lr_scheduler_kwargs`, received {min_lr!r} and {min_lr_rate!r}"
        )
    return min_lr_rate if min_lr is None else min_lr / run.peak  # type: ignore[return-value]


BUILTIN = {
    builtin.name: builtin
    for builtin in (
        Builtin("linear", _linear),
        Builtin("cosine", _cosine),
        Builtin("cosine_with_restarts", _cosine_with_restarts),
        Builtin("polynomial", _polynomial),
        Builtin("constant", _constant, arguments_ignored=True, has_warmup=False),
        Builtin("constant_with_warmup", _constant_with_warmup, arguments_ignored=True),
        Builtin("inverse_sqrt", _inverse_sqrt),
        Builtin("reduce_lr_on_plateau", _reduce_lr_on_plateau, has_warmup=False),
        Builtin("cosine_with_min_lr", _cosine_with_min_lr),
        Builtin("cosine_warmup_with_min_lr", _cosine_warmup_with_min_lr),
        Builtin("warmup_stable_decay", _warmup_stable_decay),
        Builtin("greedy", _greedy, has_warmup=False),
    )
}
