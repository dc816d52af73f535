"""Shapes: how a phase moves from its first level to its last.

A shape is a function of `u` that says how far above the lower level the learning rate is: 0 at the lower level, 1 at
the upper one. `u` is the relative distance from the lower end of the phase, so a rising phase passes `u` from 0 to 1
and a falling phase from 1 to 0. Measuring from the lower end keeps all digits near the floor, where `1 - progress`
would lose them.

To add a shape, write its function and add a line to `FORMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hf_sched.schedules.validation import ArgumentError, Number, Reader, suggest

Array: TypeAlias = npt.NDArray[np.float64]

# The default rate of an exponential phase: it decays to 1% before it is scaled to end exactly on its end level.
EXPONENTIAL_RATE = math.log(100.0)


def cosine(u: Array, _: float) -> Array:
    """Half a cosine, `(1 - cos(pi u)) / 2`, as `sin(pi u / 2) ** 2` (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    sine = np.sin(u * (np.pi / 2))
    return sine * sine


def one_minus_sqrt(u: Array, _: float) -> Array:
    """`1 - sqrt(z)` with `z = 1 - u`, without cancellation (Hägele et al. 2024, arXiv 2405.18392)."""
    return u / (1.0 + np.sqrt(1.0 - u))


def saturating(u: Array, rate: float) -> Array:
    """`(1 - exp(-rate u)) / (1 - exp(-rate))`: the gap to the upper level shrinks by a constant ratio per step.

    The untuned exponential warmup of Ma and Yarats 2019 (arXiv 1910.04209) has this form.
    """
    return np.expm1(-rate * u) / np.expm1(-rate)  # type: ignore[no-any-return]


def exponential(u: Array, rate: float) -> Array:
    """`(exp(rate u) - 1) / (exp(rate) - 1)`: the gap to the lower level shrinks by a constant ratio per step.

    Between levels with the ratio `exp(rate)` this is exactly `gamma ** t`.
    """
    # The exponents are never positive, so no rate overflows.
    return np.exp(-rate * (1.0 - u)) * (np.expm1(-rate * u) / np.expm1(-rate))  # type: ignore[no-any-return]


def inverse_sqrt(u: Array, length: float) -> Array:
    """`1 / sqrt(1 + t)` over `length` time scales, scaled to end on 0 (Vaswani et al. 2017, arXiv 1706.03762)."""
    # (1 / here - 1 / last) / (1 - 1 / last), rearranged so that nothing cancels.
    here, last = np.sqrt(1.0 + length * (1.0 - u)), math.sqrt(1.0 + length)
    return u * (1.0 + last) / (here * (here + last))


class Form(NamedTuple):
    """The functions behind a shape's name, and the number that it takes."""

    rising: Callable[[Array, float], Array] | None
    """The function for a warmup; None if no warmup has this shape."""
    falling: Callable[[Array, float], Array] | None
    """The function for a decay; None if no decay has this shape."""
    number: str | None = None
    """What the shape's number is called; None if it takes none."""
    default: float | None = None
    """The number if it is omitted; None if it is required."""

    def usage(self, name: str) -> str:
        """The shape as the grammar writes it: `exponential [RATE]`."""
        if self.number is None:
            return name
        return f"{name} {self.number.upper()}" if self.default is None else f"{name} [{self.number.upper()}]"


FORMS = {
    "linear": Form(lambda u, _: u, lambda u, _: u),
    "cosine": Form(cosine, cosine),
    "sqrt": Form(lambda u, _: np.sqrt(u), None),
    "1-sqrt": Form(None, one_minus_sqrt),
    "polynomial": Form(None, lambda u, power: np.power(u, power), "power"),
    "exponential": Form(saturating, exponential, "rate", EXPONENTIAL_RATE),
    # A constant ratio from step to step. `Schedule.from_phases` sets its rate, the logarithm of the ratio of its
    # levels.
    "geometric": Form(exponential, exponential),
    # `(1 - z) / (1 - z / 2)` with `z = 1 - u` (Chen et al. 2021, arXiv 2107.04197)
    "rex": Form(None, lambda u, _: 2.0 * u / (1.0 + u)),
    "inverse_sqrt": Form(None, inverse_sqrt, "length"),
}
WARMUP_SHAPES = tuple(name for name, form in FORMS.items() if form.rising)
DECAY_SHAPES = tuple(name for name, form in FORMS.items() if form.falling)


class Shape(NamedTuple):
    """A shape's name and its number, if it takes one: the power of a polynomial, for example."""

    name: str
    number: float | None = None

    def __call__(self, u: Array, *, rising: bool) -> Array:
        """The fraction of the way from the lower level to the upper one at each `u`; float64 of the shape of `u`."""
        form = FORMS[self.name]
        function = form.rising if rising else form.falling
        assert function is not None  # `ShapeReader` checked it when the phase was made
        return function(u, self.number or 0.0)

    def __str__(self) -> str:
        form = FORMS[self.name]
        has_number = form.number is not None and self.number != form.default
        return f"{self.name} {self.number!r}" if has_number else self.name


class ShapeReader(Reader):
    """The name of a shape, followed by its number if it takes one: `cosine`, `polynomial 2`."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.allowed = f"one of {', '.join(FORMS[name].usage(name) for name in names)}"

    def __call__(self, name: str, value: object) -> Shape:
        text = str(value) if isinstance(value, (str, Shape)) else ""
        shape, *numbers = text.split() or [""]
        if shape not in self.names:
            raise ArgumentError(name, self.allowed, value, suggest(shape, self.names))
        form = FORMS[shape]
        if not numbers and (form.number is None or form.default is not None):
            return Shape(shape, form.default)
        if form.number is None or len(numbers) != 1:
            raise ArgumentError(name, f"written as '{form.usage(shape)}'", value)
        return Shape(shape, Number(0, above_low=True)(name, numbers[0]))
