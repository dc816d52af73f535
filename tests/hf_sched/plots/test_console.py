"""Text is wrapped at words on a terminal; elsewhere its lines stay whole."""

from __future__ import annotations

from io import StringIO

import pytest

from hf_sched.plots.console import wrapped

TEXT = """\
largest deviation  2e-05 at step 12 of the first group
- the learning rate of a group departs from the plan"""


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_are_wrapped_at_words_below_their_second_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "36")
    assert wrapped(TEXT, Terminal()).splitlines() == [
        "largest deviation  2e-05 at step 12",
        "                   of the first",
        "                   group",
        "- the learning rate of a group",
        "  departs from the plan",
    ]
    assert wrapped(TEXT, StringIO()) == TEXT
