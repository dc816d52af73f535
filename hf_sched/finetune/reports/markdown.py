"""Markdown of data. Text that a model or a user wrote shows as it is and cannot become markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_MOST = 600


def text(value: Any) -> str:
    """A value as plain text on one line; the middle of a long one is omitted."""
    flat = " ".join(str(value).split())
    if len(flat) > _MOST:
        flat = f"{flat[: _MOST * 2 // 3]} ... {flat[-_MOST // 3 :]}"
    flat = re.sub(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))", r"\\\1", flat)
    # Renderers differ in whether a backslash keeps these from becoming HTML, and an address from becoming a link.
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?i)\b(https?|ftp)://|\bwww\.", lambda found: found[0].replace(":", "&#58;", 1), flat)


def code(value: Any) -> str:
    """A value as inline code, for a table cell."""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    flat = " ".join(shown.split())[:_MOST]
    if not flat:
        return "(empty)"
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", flat)), default=0))
    space = " " if "`" in (flat[0], flat[-1]) else ""
    return f"{fence}{space}{flat.replace('|', chr(92) + '|')}{space}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose cells are Markdown, and an empty line; no lines without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""] if lines else []
