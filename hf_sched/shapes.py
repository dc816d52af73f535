"""Shapes: how a phase gets from its first level to its last.

A shape maps progress in [0, 1] to the share of the way covered, 0 at 0 and 1 at 1, never falling. Each takes a float or
a float64 array and gives back the same kind, by the same operations, so that one step and a whole curve agree bit for
bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

X = TypeVar("X", float, npt.NDArray[np.float64])
Shape = Callable[[Any], Any]
"""A float to a float, an array to an array."""

# What is left of the gap to the peak when an exponential warmup would have ended, before it is scaled to end on the
# peak.
EXPONENTIAL_REMAINDER = 0.01


def linear(x: X) -> X:
    """The straight line `x`."""
    return x


def cosine(x: X) -> X:
    """Half a cosine, `(1 - cos(pi x)) / 2` (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    y: X = 0.5 - 0.5 * np.cos(np.pi * x)
    return y


def sqrt(x: X) -> X:
    """`sqrt(x)`: steep first, flat last. Downwards it is the `1-sqrt` decay (Hägele et al. 2024, arXiv 2405.18392)."""
    y: X = np.sqrt(x)
    return y


def exponential(x: X) -> X:
    """`(1 - r ** x) / (1 - r)` with r = 0.01: `1 - gamma ** t` for `gamma ** duration = 0.01`, scaled to end at 1.

    The untuned exponential warmup of Ma and Yarats 2019 (arXiv 1910.04209) has this form.
    """
    return (1.0 - np.power(EXPONENTIAL_REMAINDER, x)) / (1.0 - EXPONENTIAL_REMAINDER)  # type: ignore[no-any-return]


def geometric(ratio: float) -> Shape:
    """A constant ratio from step to step: from `ratio` times the end level to the end level, `0 < ratio < 1`.

    The value `ratio ** (1 - x)` written as a share of the way: `(ratio ** (1 - x) - ratio) / (1 - ratio)`.
    """

    def shape(x: X) -> X:
        return (np.power(ratio, 1.0 - x) - ratio) / (1.0 - ratio)  # type: ignore[no-any-return]

    return shape


# By the names that users write. `geometric` is made from its phase's levels, see `Phase`.
WARMUP_SHAPES = ("linear", "cosine", "sqrt", "exponential", "geometric")
DECAY_SHAPES = ("linear", "cosine", "1-sqrt")
BY_NAME: dict[str, Shape] = {
    "linear": linear,
    "cosine": cosine,
    "sqrt": sqrt,
    "1-sqrt": sqrt,
    "exponential": exponential,
}
