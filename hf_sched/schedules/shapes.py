"""Shapes: how a phase gets from its first level to its last.

A shape is drawn by its height between the two levels: 0 on the lower one, 1 on the upper one. It is a function of `u`,
the share of the phase that lies between a step and the lower end: a rising phase passes u from 0 to 1, a falling one
from 1 to 0. Measured so, heights near the floor keep all their digits, which `1 - progress` would lose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.validation import ArgumentError, Number, Reader, did_you_mean

Array: TypeAlias = npt.NDArray[np.float64]

# What is left of the way when an exponential phase ends, before it is scaled to end on its end level: a hundredth.
EXPONENTIAL_RATE = math.log(100.0)


def linear(u: Array, _: float) -> Array:
    """The straight line `u`."""
    return u


def cosine(u: Array, _: float) -> Array:
    """Half a cosine, `(1 - cos(pi u)) / 2`, as `sin(pi u / 2) ** 2` (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    sine = np.sin(u * (np.pi / 2))
    return sine * sine


def sqrt(u: Array, _: float) -> Array:
    """`sqrt(u)`: steep first, flat last."""
    return np.sqrt(u)


def one_minus_sqrt(u: Array, _: float) -> Array:
    """`1 - sqrt(z)` with `z = 1 - u`, without its cancellation (Hägele et al. 2024, arXiv 2405.18392)."""
    return u / (1.0 + np.sqrt(1.0 - u))


def polynomial(u: Array, power: float) -> Array:
    """`u ** power`."""
    return np.power(u, power)


def saturating(u: Array, rate: float) -> Array:
    """`(1 - exp(-rate u)) / (1 - exp(-rate))`: the gap to the upper level shrinks by a constant ratio a step.

    The untuned exponential warmup of Ma and Yarats 2019 (arXiv 1910.04209) has this form.
    """
    return np.expm1(-rate * u) / np.expm1(-rate)  # type: ignore[no-any-return]


def exponential(u: Array, rate: float) -> Array:
    """`(exp(rate u) - 1) / (exp(rate) - 1)`: the height above the lower level falls by a constant ratio a step.

    Between levels whose ratio is `exp(rate)` the learning rate itself does: `gamma ** t`.
    """
    # Written with exponents that are never positive, so that no rate overflows.
    return np.exp(-rate * (1.0 - u)) * (np.expm1(-rate * u) / np.expm1(-rate))  # type: ignore[no-any-return]


def rex(u: Array, _: float) -> Array:
    """`(1 - z) / (1 - z / 2)` with `z = 1 - u` (Chen et al. 2021, arXiv 2107.04197)."""
    return 2.0 * u / (1.0 + u)


def inverse_sqrt(u: Array, length: float) -> Array:
    """`1 / sqrt(1 + t)` over `length` time scales, scaled to end on 0 (Vaswani et al. 2017, arXiv 1706.03762)."""
    # (1 / here - 1 / last) / (1 - 1 / last), turned so that nothing cancels.
    here, last = np.sqrt(1.0 + length * (1.0 - u)), math.sqrt(1.0 + length)
    return u * (1.0 + last) / (here * (here + last))


@dataclass(frozen=True)
class Form:
    """A shape by name: its height where it rises, where it falls (None: it does not), and the number it takes."""

    rising: Callable[[Array, float], Array] | None
    falling: Callable[[Array, float], Array] | None
    number: str | None = None
    default: float | None = None


# By the names that users write.
FORMS = {
    "linear": Form(linear, linear),
    "cosine": Form(cosine, cosine),
    "sqrt": Form(sqrt, None),
    "1-sqrt": Form(None, one_minus_sqrt),
    "polynomial": Form(None, polynomial, "power"),
    "exponential": Form(saturating, exponential, "rate", EXPONENTIAL_RATE),
    # A constant ratio from step to step. Its rate, the logarithm of the ratio of its levels, is set when it is laid.
    "geometric": Form(exponential, exponential),
    "rex": Form(None, rex),
    "inverse_sqrt": Form(None, inverse_sqrt, "length"),
}
WARMUP_SHAPES = tuple(name for name, form in FORMS.items() if form.rising)
DECAY_SHAPES = tuple(name for name, form in FORMS.items() if form.falling)


@dataclass(frozen=True)
class Shape:
    """A shape's name, and its number where it takes one: the power of a polynomial, say."""

    name: str
    number: float | None = None

    def height(self, u: Array, *, rising: bool) -> Array:
        """The height at each `u`, float64 of u's shape."""
        form = FORMS[self.name]
        function = form.rising if rising else form.falling
        assert function is not None  # the phases were checked when they were made
        return function(u, self.number or 0.0)

    def __str__(self) -> str:
        form = FORMS[self.name]
        written = form.number is not None and self.number != form.default
        return f"{self.name} {self.number!r}" if written else self.name


@dataclass(frozen=True)
class ShapeReader(Reader):
    """The name of a shape, and its number behind it where it takes one: `cosine`, `polynomial 2`."""

    names: tuple[str, ...]

    def __call__(self, name: str, value: object) -> Shape:
        text = str(value) if isinstance(value, (str, Shape)) else ""
        shape, *numbers = text.split() or [""]
        if shape not in self.names:
            raise ValueError(
                f"{ArgumentError(name, 'one of ' + ', '.join(self.names), value)}{did_you_mean(shape, self.names)}"
            )
        form = FORMS[shape]
        if form.number is None and numbers:
            raise ArgumentError(name, f"{shape!r} alone (it takes no number)", value)
        if form.number is not None and len(numbers) != 1 and (numbers or form.default is None):
            raise ArgumentError(name, f"{shape!r} and one number, its {form.number} ('{shape} 2')", value)
        if not numbers:
            return Shape(shape, form.default)
        try:
            return Shape(shape, Number(0, above_low=True)(name, numbers[0]))
        except ValueError:
            raise ArgumentError(name, f"{shape!r} and its {form.number}, a number above 0", value) from None
