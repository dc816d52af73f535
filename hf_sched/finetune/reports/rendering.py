"""Renders data as Markdown, and Markdown as one self-contained HTML page: pictures embedded, no script.

Text that a model or a user wrote shows as it is and cannot become markup.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt

_MOST = 600
_STYLE = """
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: #1c2024;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 0.75rem; }
p:has(img) { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0.5rem; }
img { display: block; width: 100%; max-width: 40rem; height: auto; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.75rem 0.35rem 0;
  border-bottom: 1px solid #d9d9e0; min-width: 5rem; max-width: 40rem; font-variant-numeric: tabular-nums; }
thead:not(:has(th:not(:empty))) { display: none; }
code { background: #f4f4f6; padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; }
pre code { display: block; padding: 0.75rem; white-space: pre-wrap; }
"""


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


def block(lines: Iterable[str]) -> list[str]:
    """Lines of text as an indented block, which shows them as they are, and an empty line."""
    return [*(f"    {' '.join(line.splitlines())}" for line in lines), ""]


def to_html(markdown: str, pictures: Mapping[str, bytes], title: str) -> str:
    """Render a page; `pictures` are the PNG files that it shows, by name. Other pictures are shown as their text."""

    def image(_: object, tokens: list, at: int, *rest: object) -> str:  # type: ignore[type-arg]
        png = pictures.get(str(tokens[at].attrGet("src")))
        alt = html.escape(tokens[at].content)
        return alt if png is None else f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    renderer.add_render_rule("image", image)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{renderer.render(markdown)}</body>\n</html>\n"
    )
