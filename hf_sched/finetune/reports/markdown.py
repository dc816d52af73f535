"""Markdown of data: whatever a model wrote shows as the text it is, in a table, on any page that it is rendered on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_MOST = 600


def text(value: Any, most: int = _MOST) -> str:
    """A value as plain text on one line; of a long one the beginning and the end."""
    flat = " ".join(str(value).split())
    if len(flat) > most:
        flat = f"{flat[: most * 2 // 3]} ... {flat[-most // 3 :]}"
    flat = re.sub(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))", r"\\\1", flat)
    # Pages differ in whether a backslash keeps these from being HTML, and an address from becoming a link.
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?i)\b(https?|ftp)://|\bwww\.", lambda found: found[0].replace(":", "&#58;", 1), flat)


def code(value: Any) -> str:
    """A value as code on one line, in a table."""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    flat = " ".join(shown.split())[:_MOST]
    if not flat:
        return "(empty)"
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", flat)), default=0))
    space = " " if "`" in (flat[0], flat[-1]) else ""
    return f"{fence}{space}{flat.replace('|', chr(92) + '|')}{space}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, of cells that are Markdown already, and an empty line; nothing without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""] if lines else []
