"""Text on a terminal: wrapped at words there, and in whole lines in a pipe or a log file, so that `grep` finds them."""

from __future__ import annotations

import re
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

if TYPE_CHECKING:
    from rich.status import Status

_FIRST_COLUMN = re.compile(r"\S+( \S+)* {2,}")


def console(file: TextIO | None = None) -> Console:
    """A console, by default for standard output."""
    found = Console(file=file, highlight=False, emoji=False)
    if found.is_terminal:
        return found
    return Console(file=file, highlight=False, emoji=False, soft_wrap=True, width=1000, no_color=True)


def has_colors(out: Console) -> bool:
    """Whether it shows colors; otherwise letters mark the curves of a plot."""
    return out.color_system is not None and not out.no_color


def wrapped(text: str, file: TextIO) -> str:
    """Wrap each line at words if `file` is a terminal; a line of two columns continues below the second one."""
    if not file.isatty():
        return text
    width, lines = Console(file=file).width, []
    for line in text.splitlines():
        column = _FIRST_COLUMN.match(line)
        indent = " " * (column.end() if column else 2)
        lines.append(
            textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(lines)


def waiting(what: str) -> Status:
    """Show, on a terminal, what a command is doing until the context ends."""
    # rich takes FORCE_COLOR, which notebooks set, for a terminal.
    force = None if sys.stderr.isatty() else False
    return Console(file=sys.stderr, force_terminal=force).status(f"{what} ...", spinner="line")
