"""Shapes: the share of the way covered, against closed forms written out again with the standard library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_sched import shapes

RATIO = 0.02
FORMULAS = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "sqrt": math.sqrt,
    "1-sqrt": math.sqrt,
    "exponential": lambda x: (1 - 0.01**x) / 0.99,
    "geometric": lambda x: (RATIO ** (1 - x) - RATIO) / (1 - RATIO),
}
every_shape = pytest.mark.parametrize("name", FORMULAS)
progress = st.floats(0, 1)


def shape(name: str) -> shapes.Shape:
    return shapes.geometric(RATIO) if name == "geometric" else shapes.BY_NAME[name]


def test_every_shape_that_a_user_may_name_has_a_formula_here():
    assert {*shapes.WARMUP_SHAPES, *shapes.DECAY_SHAPES} == set(FORMULAS)
    assert set(shapes.BY_NAME) == set(FORMULAS) - {"geometric"}


@every_shape
@given(x=progress)
def test_a_shape_is_its_formula(name, x):
    assert float(shape(name)(x)) == pytest.approx(FORMULAS[name](x), rel=1e-12, abs=1e-15)


@every_shape
def test_a_shape_starts_at_exactly_0_and_ends_at_exactly_1(name):
    # Exactly: the peak and the floor of a run hang on it.
    assert [float(shape(name)(x)) for x in (0.0, 1.0)] == [0.0, 1.0]


@every_shape
@given(xs=st.tuples(progress, progress))
def test_a_shape_never_falls(name, xs):
    low, high = (float(shape(name)(x)) for x in sorted(xs))
    assert 0 <= low <= high + 1e-15
    assert high <= 1


@every_shape
@given(xs=st.lists(progress, min_size=1, max_size=40))
def test_one_value_and_an_array_agree_bit_for_bit(name, xs):
    # NumPy may take another path for long arrays than for single values.
    assert shape(name)(np.array(xs)).tolist() == [float(shape(name)(x)) for x in xs]


@given(ratio=st.floats(1e-9, 0.99), steps=st.integers(2, 50))
def test_geometric_grows_by_the_same_factor_at_every_step(ratio, steps):
    levels = ratio + (1 - ratio) * shapes.geometric(ratio)(np.arange(steps + 1) / steps)
    np.testing.assert_allclose(levels[1:] / levels[:-1], ratio ** (-1 / steps), rtol=1e-6)


def test_an_exponential_warmup_has_a_hundredth_of_the_way_left_before_it_is_scaled():
    # The remainder shrinks by the same factor a step, down to the 0.01 that the scaling takes away.
    left = 1 - 0.99 * shapes.exponential(np.arange(11) / 10)
    np.testing.assert_allclose(left[1:] / left[:-1], 0.01**0.1, rtol=1e-12)
