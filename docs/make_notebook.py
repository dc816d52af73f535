"""Write docs/first-run.ipynb, the notebook of docs/first-run.md.

python docs/make_notebook.py

Blocks marked `bash` and hidden comments that begin with `notebook` become cells that run, the YAML file becomes a cell
that writes it, and other text stays text. Blocks marked `text` are output and are left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("first-run.md")
NOTEBOOK = PAGE.with_suffix(".ipynb")

PART = re.compile(
    r"^```bash\n(?P<bash>.*?)^```$|^```yaml\n(?P<yaml>.*?)^```$|^```text\n(?P<text>.*?)^```$"
    r"|^<!-- notebook\n(?P<python>.*?)^-->$",
    flags=re.MULTILINE | re.DOTALL,
)


def main() -> None:
    """Write the notebook."""
    NOTEBOOK.write_text(notebook(), encoding="utf-8")


def parts() -> list[tuple[str, str]]:
    """The kinds and contents of the blocks of the page, in order; the text between them is of the kind `markdown`."""
    page, found, position = PAGE.read_text(encoding="utf-8"), [], 0
    for match in PART.finditer(page):
        found.append(("markdown", page[position : match.start()].strip()))
        found.append((str(match.lastgroup), match[str(match.lastgroup)].rstrip()))
        position = match.end()
    return [(kind, text) for kind, text in [*found, ("markdown", page[position:].strip())] if text]


def notebook() -> str:
    """The notebook as JSON, without outputs."""
    starts = {"bash": "%%bash\n", "yaml": "%%writefile first.yaml\n", "python": "", "markdown": ""}
    cells = [_cell(kind, starts[kind] + text) for kind, text in parts() if kind in starts]
    content = {
        "cells": cells,
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str, source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    if kind == "markdown":
        return {"cell_type": "markdown", "metadata": {}, "source": lines}
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines}


if __name__ == "__main__":
    main()
