"""A report as one HTML page: pictures within, nothing from outside, no script, light or dark, on any width."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt

from hf_sched.finetune.reports.pictures import Picture

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fff; --line: #d9d9e0; --tint: #f4f4f6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #b0b4ba; --paper: #161616; --line: #3a3f45; --tint: #1f2226; }
  /* of the pictures' white it makes the paper's colour */
  img { filter: invert(0.915) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 0.75rem; }
h1 { margin-top: 0.5rem; }
h2 { padding-top: 1rem; border-top: 1px solid var(--line); }
p, li { max-width: 60rem; }
p:has(.panels) { max-width: none; }
.wide { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.75rem 0.35rem 0;
  border-bottom: 1px solid var(--line); min-width: 5rem; max-width: 40rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; }
thead:not(:has(th:not(:empty))) { display: none; }
code { background: var(--tint); padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; overflow-wrap: anywhere; }
td:first-child code { overflow-wrap: break-word; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 0.5rem; }
.panels img { display: block; width: 100%; max-width: 40rem; height: auto; }
"""


def page(lines: Sequence[str], pictures: Sequence[Picture], title: str) -> str:
    """The page.

    Args:
        lines: The report in Markdown.
        pictures: Those that it shows, by their names.
        title: Of the page.
    """
    # What a model wrote is text in it: HTML is not let through, nor a picture that is not one of these.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    by_name = {picture.name: picture for picture in pictures}
    markdown.add_render_rule("image", lambda _, tokens, at, *rest: _panels(by_name, tokens[at]))
    markdown.add_render_rule("text", lambda _, tokens, at, *rest: _breakable(tokens[at].content))
    markdown.add_render_rule(
        "code_inline", lambda _, tokens, at, *rest: f"<code>{_breakable(tokens[at].content)}</code>"
    )
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    body = markdown.render("\n".join(lines))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _breakable(text: str) -> str:
    """Text in HTML, with the places in paths and names where a narrow column may break them."""
    return re.sub(r"(?<=\w)([/_]+)(?=\w)", r"\1<wbr>", html.escape(text))


def _panels(pictures: Mapping[str, Picture], token: Any) -> str:
    picture = pictures.get(str(token.attrGet("src")))
    if picture is None:
        return html.escape(token.content)
    shown = (
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for title, png in picture.pngs()
    )
    return f'<span class="panels">{"".join(shown)}</span>'
