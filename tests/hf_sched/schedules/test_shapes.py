"""Shapes: their values between two levels, compared with textbook formulas computed with 60 digits."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sched.schedules.shapes import DECAY_SHAPES, FORMS, WARMUP_SHAPES, Shape, ShapeReader

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
# In terms of the progress x, as papers write them, and the shape's number p. A rising shape goes from 0 to 1, a falling
# one from 1 to 0.
RISING = {
    "linear": lambda x, _: x,
    "cosine": lambda x, _: (1 - cos(PI * x)) / 2,
    "sqrt": lambda x, _: x.sqrt(),
    "exponential": lambda x, p: (1 - (-p * x).exp()) / (1 - (-p).exp()),
    "geometric": lambda x, p: ((p * x).exp() - 1) / (p.exp() - 1),
}
FALLING = {
    "linear": lambda x, _: 1 - x,
    "cosine": lambda x, _: (1 + cos(PI * x)) / 2,
    "1-sqrt": lambda x, _: 1 - x.sqrt(),
    "polynomial": lambda x, p: (1 - x) ** p if x < 1 else Decimal(0),
    "exponential": lambda x, p: ((-p * x).exp() - (-p).exp()) / (1 - (-p).exp()),
    "geometric": lambda x, p: ((-p * x).exp() - (-p).exp()) / (1 - (-p).exp()),
    "rex": lambda x, _: (1 - x) / (1 - x / 2),
    "inverse_sqrt": lambda x, p: ((1 + p * x) ** -HALF - (1 + p) ** -HALF) / (1 - (1 + p) ** -HALF),
}
HALF = Decimal("0.5")
EVERY_SHAPE = [(name, True) for name in RISING] + [(name, False) for name in FALLING]
every_shape = pytest.mark.parametrize(
    ("name", "rising"), EVERY_SHAPE, ids=[f"{name} {'up' if rising else 'down'}" for name, rising in EVERY_SHAPE]
)
# From the lower level (0) to the upper one (1), near the lower one down to less than a step of the longest run.
shares = st.one_of(st.floats(0, 1).filter(lambda u: u == 0 or u > 1e-18), st.floats(-18, 0).map(lambda x: 10.0**x))
# Ratios, powers and lengths that somebody might write, and all that may be written.
usual_numbers = st.floats(0.01, 50)
all_numbers = st.one_of(st.floats(-300, 300).map(lambda x: 10.0**x), st.sampled_from([1e-300, 1.0, 1e300]))


def cos(x: Decimal) -> Decimal:
    """By its series."""
    term = total = Decimal(1)
    for n in range(1, 60):
        term *= -x * x / (2 * n * (2 * n - 1))
        total += term
    return total


def textbook(name: str, number: float, u: float, *, rising: bool) -> float:
    with localcontext(prec=60):
        x = Decimal(u) if rising else 1 - Decimal(u)
        return float((RISING if rising else FALLING)[name](x, Decimal(number)))


def values(name: str, number: float, *us: float, rising: bool) -> list[float]:
    return Shape(name, number)(np.array(us), rising=rising).tolist()


def test_every_shape_has_a_formula_here():
    assert (set(WARMUP_SHAPES), set(DECAY_SHAPES), set(FORMS)) == (set(RISING), set(FALLING), {*RISING, *FALLING})


@every_shape
@settings(max_examples=25, deadline=None)
@given(u=shares, number=usual_numbers)
def test_a_shape_is_its_formula_to_twelve_digits_down_to_the_lower_level(name, rising, u, number):
    (value,) = values(name, number, u, rising=rising)
    # `abs` is for the textbook's own rounding, where the cosine's value is 0.
    assert value == pytest.approx(textbook(name, number, u, rising=rising), rel=1e-12, abs=1e-45)


@every_shape
def test_a_shape_is_exactly_0_on_its_lower_level_and_1_on_its_upper(name, rising):
    # Exactly: the peak and the floor of a run hang on it, and a value below 0 is a negative learning rate.
    for number in [*np.geomspace(1e-3, 1e3, 600).tolist(), *np.geomspace(1e-300, 1e300, 100).tolist()]:
        for count in (1, 9):
            ends = values(name, number, *[0.0, 1.0] * count, rising=rising)
            assert set(ends[::2]) == {0.0} and set(ends[1::2]) == {1.0}, (number, ends)
            assert math.copysign(1, ends[0]) == 1


@every_shape
@settings(max_examples=25, deadline=None)
@given(xs=st.tuples(shares, shares), number=usual_numbers)
def test_a_shape_never_falls_with_u(name, rising, xs, number):
    low, high = values(name, number, *sorted(xs), rising=rising)
    assert 0 <= low <= high * (1 + 1e-15) <= 1 + 1e-15


@every_shape
@settings(max_examples=25, deadline=None)
@given(xs=st.lists(shares, min_size=1, max_size=40), number=usual_numbers)
def test_one_value_and_an_array_agree_bit_for_bit(name, rising, xs, number):
    # NumPy may take another path for long arrays than for single values.
    alone = [value for u in xs for value in values(name, number, u, rising=rising)]
    assert values(name, number, *xs, rising=rising) == alone
    assert values(name, number, *xs * 50, rising=rising) == alone * 50


@every_shape
@settings(max_examples=25, deadline=None)
@given(u=shares, number=all_numbers)
def test_extreme_numbers_of_a_shape_stay_in_range(name, rising, u, number):
    with np.errstate(all="raise", under="ignore"):
        assert 0 <= values(name, number, u, rising=rising)[0] <= 1


def test_a_shape_prints_its_number_unless_it_is_the_default():
    names = ("cosine", "exponential", "exponential 3", "polynomial 2")
    written = [str(ShapeReader(DECAY_SHAPES)("shape", name)) for name in names]
    assert written == ["cosine", "exponential", "exponential 3.0", "polynomial 2.0"]
