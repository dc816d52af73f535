"""transformers' own schedules: their descriptions, their arguments, and their curves.

Arguments and curves come from transformers' own functions, which are imported when they are needed. Two properties
differ from the schedules of hf_sched: a warmup trains step 0 at a learning rate of 0, and a decay would reach its end
one step after the run.
"""

from __future__ import annotations

import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hf_sched.integrations import transformers
from hf_sched.schedules.validation import ArgumentError, Number, OneOf, Whole, reader_of, unknown_argument

FOLLOWING_A_METRIC = ("reduce_lr_on_plateau", "greedy")
_FROM_THE_TRAINER = ("self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")


def scheduler_function(name: str) -> Callable[..., Any]:
    """The function or class that makes the scheduler and whose signature names its arguments.

    Raises:
        ArgumentError: The installed transformers has no schedule of this name.
    """
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers import SchedulerType

    OneOf(tuple(member.value for member in SchedulerType if member.value in BUILTIN))("lr_scheduler_type", name)
    if name == "greedy":
        from transformers.optimization import GreedyLR

        return GreedyLR  # type: ignore[no-any-return]
    return ReduceLROnPlateau if name == "reduce_lr_on_plateau" else transformers.scheduler_function(name)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """The arguments that `lr_scheduler_kwargs` may hold, by name."""
    signature = inspect.signature(scheduler_function(name)).parameters
    return {key: parameter for key, parameter in signature.items() if key not in _FROM_THE_TRAINER}


def readers(name: str) -> dict[str, Callable[[str, Any], Any]]:
    """The reader of each argument, chosen by its annotation or else by the type of its default."""
    made_by = scheduler_function(name)
    hints = typing.get_type_hints(made_by.__init__ if inspect.isclass(made_by) else made_by)
    found: dict[str, Callable[[str, Any], Any]] = {}
    for key, parameter in parameters(name).items():
        hint = hints.get(key, type(parameter.default))
        words = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        found[key] = OneOf(words) if words else reader_of(hint) or (lambda _, value: value)
    return found


def has_warmup(name: str) -> bool:
    """Whether the schedule follows `warmup_steps`."""
    return "num_warmup_steps" in inspect.signature(scheduler_function(name)).parameters


def read_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a schedule, numbers that YAML reads as text (`1e-7`) as numbers; transformers judges the rest.

    Raises:
        ArgumentError: An argument is unknown, or text is not allowed.
    """
    takes = readers(name)
    for key, value in arguments.items():
        if key not in takes:
            raise unknown_argument(key, value, takes, name)
    return {key: takes[key](key, value) if isinstance(value, str) else value for key, value in arguments.items()}


def multiplier(
    name: str,
    arguments: Mapping[str, Any],
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    peak: float = 1.0,
) -> Callable[[int], float] | None:
    """The function that transformers multiplies each group's peak with, from the step (0 or more).

    Args:
        name: One of `BUILTIN`.
        arguments: The contents of `lr_scheduler_kwargs`.
        num_training_steps: Optimizer steps of the run, 1 or more.
        num_warmup_steps: Those of the warmup; schedules without a warmup ignore them.
        peak: `learning_rate`.

    Returns:
        None if the schedule follows a metric.

    Raises:
        ArgumentError: The name is unknown, or an argument is wrong.
    """
    import torch
    from transformers import get_scheduler

    total, warmup = Whole(1)("num_training_steps", num_training_steps), Whole()("num_warmup_steps", num_warmup_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=Number(0)("peak", peak))
    given = read_arguments(name, arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = get_scheduler(name, optimizer, warmup, total, given)
        multiply: Callable[[int], float] | None = getattr(scheduler, "lr_lambdas", [None])[0]
        for step in (warmup, total) if multiply else ():
            multiply(step)  # type: ignore[misc]
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ArgumentError(
            "lr_scheduler_kwargs", received=dict(arguments), rule=f"is rejected by transformers' {name} ({error})"
        ) from None
    return multiply


def curve(
    name: str, arguments: Mapping[str, Any], *, num_training_steps: int, num_warmup_steps: int = 0, peak: float = 1.0
) -> npt.NDArray[np.float64] | None:
    """The learning rates of a run, of shape (num_training_steps,); arguments and errors as in `multiplier`."""
    run = {"num_training_steps": num_training_steps, "num_warmup_steps": num_warmup_steps}
    multiply = multiplier(name, arguments, **run, peak=peak)
    return multiply and np.array([float(peak) * multiply(step) for step in range(int(num_training_steps))])


_AFTER_WARMUP = "after a linear warmup from 0"

BUILTIN = {
    "linear": f"""A straight line to 0, {_AFTER_WARMUP}.
Formula: peak * (T - k) / (T - W)""",
    "cosine": f"""Half a cosine to 0, {_AFTER_WARMUP}; with more than half a cycle it rises again.
Formula: peak * (1 + cos(2 pi num_cycles (k - W) / (T - W))) / 2
Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), without the restarts""",
    "cosine_with_restarts": f"""Consecutive cosines from the peak to 0, {_AFTER_WARMUP}.
Formula: peak * (1 + cos(pi ((num_cycles (k - W) / (T - W)) mod 1))) / 2
Source: Loshchilov and Hutter 2017 (arXiv 1608.03983)""",
    "polynomial": f"""A power of the remaining share of the run, down to a learning rate, {_AFTER_WARMUP}.
Formula: lr_end + (peak - lr_end) * ((T - k) / (T - W))^power""",
    "constant": """The peak from the first step to the last, without a warmup.
Formula: peak""",
    "constant_with_warmup": f"""The peak, {_AFTER_WARMUP}.
Formula: peak * min(1, k / W)""",
    "inverse_sqrt": f"""The inverse square root of the step, {_AFTER_WARMUP}.
Formula: peak / sqrt((k - W + timescale) / timescale), where timescale is W, or 10000 without a warmup
Source: Vaswani et al. 2017 (arXiv 1706.03762)""",
    "reduce_lr_on_plateau": "Multiplied by `factor` when the evaluated metric stops improving.",
    "cosine_with_min_lr": f"""Half a cosine to `min_lr`, or to the share `min_lr_rate` of the peak, {_AFTER_WARMUP}.
Formula: min_lr + (peak - min_lr) * (1 + cos(2 pi num_cycles (k - W) / (T - W))) / 2
Example: {{min_lr_rate: 0.1}}""",
    "cosine_warmup_with_min_lr": """As `cosine_with_min_lr`, counting steps from 1, with a warmup from `warmup_lr_rate`.
Formula: min_lr + (peak - min_lr) * (1 + cos(2 pi num_cycles (k + 1 - W) / (T - W))) / 2
Example: {min_lr_rate: 0.1}""",
    "warmup_stable_decay": """A warmup from `min_lr_ratio` of the peak, the peak, and a decay to `min_lr_ratio` of it.
Formula: min_lr + (peak - min_lr) * f((k - W - num_stable_steps) / num_decay_steps), f chosen by `decay_type`
Example: {num_decay_steps: 200}
Source: Hu et al. 2024 (arXiv 2404.06395)""",
    "greedy": """Raised while the loss improves, and lowered when it does not.
Source: GreedyLR, 2025 (arXiv 2512.14527)""",
}
"""A description of each, in the form of the docstrings of hf_sched's schedules (see `hf_sched.reference`)."""
