"""Curves in a terminal, as braille characters of two by four points.

The best known library for this, plotext, takes longer to import than `hf-sched show` may take in total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
from rich.markup import escape

# A braille character is this one plus the bits of its points, by row and column.
_BRAILLE = 0x2800
_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
STYLES = ("blue", "dark_orange", "green", "magenta", "yellow", "cyan")


def draw(curves: Mapping[str, npt.ArrayLike], *, width: int = 72, height: int = 14, lettered: bool = False) -> str:
    """Draw learning rates over the optimizer steps in one frame, as text with rich's markup for colors.

    Args:
        curves: Learning rates of shape (num_training_steps,) by label, one or more; their lengths may differ.
        width: Characters per line, 30 or more.
        height: Lines of the frame, without the axis.
        lettered: Whether to mark each of several curves with a letter, for output without colors. More curves than
            there are colors always have one.
    """
    lettered = (lettered and len(curves) > 1) or len(curves) > len(STYLES)
    rates = {label: np.asarray(curve, dtype=np.float64) for label, curve in curves.items()}
    top = max(float(curve.max()) for curve in rates.values()) or 1.0
    steps = max(curve.size for curve in rates.values())
    ticks = [f"{top * share:.3g}" for share in (1, 0.5, 0)]
    margin = max(map(len, ticks))
    columns = max(width - margin - 2, 10)

    cells = np.zeros((height, columns), dtype=int)
    owner = np.zeros((height, columns), dtype=int)
    letters: dict[tuple[int, int], str] = {}
    for number, curve in enumerate(rates.values()):
        drawn = _points(curve / top, steps, columns, height)
        owner[drawn > 0] = number
        cells |= drawn
        for column in range(4 * number + 2, columns if lettered else 0, 4 * len(rates)):
            if drawn[:, column].any():
                letters[int(drawn[:, column].argmax()), column] = _letter(number)

    labels = {0: ticks[0], (height - 1) // 2: ticks[1], height - 1: ticks[2]}
    characters = [[chr(_BRAILLE + bits) if bits else " " for bits in row] for row in cells]
    for (row, column), letter in letters.items():
        characters[row][column] = letter
    lines = [
        f"{labels.get(row, ''):>{margin}} ┤{_colored(characters[row], owner[row])}".rstrip() for row in range(height)
    ]
    lines.append(" " * (margin + 1) + "└" + "─" * columns)
    lines.append(" " * (margin + 2) + "0" + f"{steps - 1}".rjust(columns - 1))
    lines.append(" " * (margin + 2) + "optimizer step".center(columns).rstrip())
    if len(rates) > 1:
        for number, label in enumerate(rates):
            key = _letter(number) if lettered else "━━"
            lines.append(f"{' ' * (margin + 2)}[{STYLES[number % len(STYLES)]}]{key}[/] {escape(label)}")
    return "\n".join(lines)


def _points(values: npt.NDArray[np.float64], steps: int, columns: int, height: int) -> npt.NDArray[np.int_]:
    """The braille bits of a curve with values from 0 to 1 in a frame of `steps` steps, of shape (height, columns)."""
    width = columns * 2
    rows = np.rint((1 - values) * (height * 4 - 1)).astype(int)
    points = np.zeros((height * 4, width), dtype=bool)
    shown = 0  # the last step of the previous column, where the line comes from
    for x in range(width):
        # All steps of a column of points, so that no jump and no short cycle is lost. With fewer steps than columns,
        # each step continues until the next.
        first = x * steps // width
        last = max(first, ((x + 1) * steps - 1) // width)
        if first >= values.size:
            break
        here = rows[shown : last + 1]
        points[here.min() : here.max() + 1, x] = True
        shown = min(last, values.size - 1)
    blocks = points.reshape(height, 4, columns, 2).transpose(0, 2, 1, 3) * _BITS
    bits: npt.NDArray[np.int_] = blocks.sum(axis=(2, 3))
    return bits


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26)


def _colored(characters: Sequence[str], owner: npt.NDArray[np.int_]) -> str:
    """A line of characters in the colors of their curves."""
    pieces = []
    shown = zip(owner.tolist(), characters, strict=True)
    for number, group in groupby(shown, key=lambda pair: -1 if pair[1] == " " else pair[0]):
        text = "".join(character for _, character in group)
        pieces.append(text if number < 0 else f"[{STYLES[number % len(STYLES)]}]{text}[/]")
    return "".join(pieces).rstrip()
