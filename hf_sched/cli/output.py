"""Output of the commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text


def print_json(value: Any) -> None:
    """Write plain values as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def columns(rows: Iterable[Sequence[str | Text]], *styles: str) -> Table:
    """A table without borders. A terminal folds its columns; each has a style, which may be empty."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for style in styles:
        table.add_column(style=style, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in row))
    return table
