"""Renders a Markdown report as one self-contained HTML page: pictures embedded, no script, light or dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

from markdown_it import MarkdownIt

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fff; --line: #d9d9e0; --tint: #f4f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #b0b4ba; --paper: #161616; --line: #3a3f45; --tint: #1f2226; }
  img { filter: invert(0.915) hue-rotate(180deg); } /* turns white into the page's color */
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 0.75rem; }
h2 { padding-top: 1rem; border-top: 1px solid var(--line); }
p:not(:has(img)), li { max-width: 60rem; }
p:has(img) { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0.5rem; }
img { display: block; width: 100%; max-width: 40rem; height: auto; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.75rem 0.35rem 0;
  border-bottom: 1px solid var(--line); min-width: 5rem; max-width: 40rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; }
thead:not(:has(th:not(:empty))) { display: none; }
code { background: var(--tint); padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; }
"""


def to_html(markdown: str, pictures: Mapping[str, bytes], title: str) -> str:
    """Render a page.

    Args:
        markdown: The report.
        pictures: The PNG files it shows, by name. Other pictures are shown as their text.
        title: The title of the page.
    """

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
