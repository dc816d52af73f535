"""Curves in a terminal, read back from the braille characters point by point."""

from __future__ import annotations

import re
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from rich.text import Text

import hf_sched
from hf_sched.plots.terminal import draw

HEIGHT = 12


def points(drawn: str) -> npt.NDArray[np.bool_]:
    """The points of the frame, of shape (4 rows a line, 2 columns a character), without the axis."""
    lines = [Text.from_markup(line).plain for line in drawn.splitlines()[:HEIGHT]]
    width = max(map(len, lines))
    frame = [line.ljust(width)[line.index("┤") + 1 :] for line in lines]
    cells = np.array([[ord(character) if character != " " else 0x2800 for character in line] for line in frame])
    bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    shown: npt.NDArray[np.bool_] = (cells[:, :, None, None] - 0x2800 & bits) > 0
    return shown.transpose(0, 2, 1, 3).reshape(HEIGHT * 4, -1)


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 3001])
@pytest.mark.parametrize("name", ["cosine_floor", "wsd", "cosine_restarts"])
def test_every_step_is_on_the_line(name: str, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps do not fit all cycles
        curve = hf_sched.build(name, num_training_steps=steps).curve(peak=2e-5)
    drawn = points(draw({name: curve}, width=70, height=HEIGHT))
    columns = np.arange(steps) * drawn.shape[1] // steps
    rows = np.rint((1 - curve / curve.max()) * (HEIGHT * 4 - 1)).astype(int)
    assert drawn[rows, columns].all()
    # A column has its own steps, the way from the previous one, and nothing else.
    for column in range(drawn.shape[1]):
        first = max(column * steps // drawn.shape[1] - 1, 0)
        last = max(column * steps // drawn.shape[1], ((column + 1) * steps - 1) // drawn.shape[1])
        here = rows[first : last + 1]
        assert set(np.flatnonzero(drawn[:, column])) <= set(range(here.min(), here.max() + 1))


def test_the_axes_show_the_peak_and_the_last_step() -> None:
    drawn = draw({"half": np.linspace(2e-5, 0, 51)}, width=60, height=HEIGHT)
    lines = drawn.splitlines()
    assert lines[0].startswith("2e-05 ┤") and lines[HEIGHT - 1].startswith("    0 ┤")
    assert re.fullmatch(r" +0 +50", lines[HEIGHT + 1])
    assert lines[HEIGHT + 2].strip() == "optimizer step"


def test_each_curve_has_a_color_and_a_label() -> None:
    drawn = draw({"one [x]": np.full(10, 1.0), "two": np.full(5, 0.5)}, width=60, height=HEIGHT)
    assert r"[blue]━━[/] one \[x]" in drawn and "[dark_orange]━━[/] two" in drawn
    shown = points(drawn)
    assert shown[0].all()  # the longer one continues to the end
    half = shown[HEIGHT * 2 - 2 : HEIGHT * 2 + 2].any(axis=0)
    assert half[: shown.shape[1] // 2].all() and not half[shown.shape[1] // 2 + 1 :].any()


def test_piped_curves_are_told_apart_by_letters_of_the_legend() -> None:
    curves = {"up": np.linspace(0, 1, 40), "down": np.linspace(1, 0, 40), "flat": np.full(40, 0.25)}
    lines = draw(curves, width=60, height=HEIGHT, lettered=True).splitlines()
    plain = [Text.from_markup(line).plain for line in lines]
    assert [line.split() for line in plain[-3:]] == [["a", "up"], ["b", "down"], ["c", "flat"]]
    frame = [line.ljust(60)[line.index("┤") + 1 :] for line in plain[:HEIGHT]]
    # A letter is on its own curve, and each curve has several.
    for letter, curve in zip("abc", curves.values(), strict=True):
        cells = [(row, column) for row, line in enumerate(frame) for column, one in enumerate(line) if one == letter]
        assert len(cells) >= 4
        for row, column in cells:
            value = np.interp(column, [0, max(map(len, frame)) - 1], [curve[0], curve[-1]])
            assert abs(row - (1 - value) * (HEIGHT - 1)) <= 1


def test_more_curves_than_colors_have_letters() -> None:
    curves = {f"curve {number}": np.full(9, float(number)) for number in range(1, 8)}
    assert "━━" not in draw(curves, height=HEIGHT)
    assert "━━" in draw(dict(list(curves.items())[:6]), height=HEIGHT)
