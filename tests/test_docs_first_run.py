"""docs/first-run.md and its notebook, which is generated from the page and runs with the output on the page."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# Losses and times depend on the machine.
VARIES = re.compile(r"loss|after \d:\d\d:\d\d|^\.\.\.$")


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_notebook", ROOT / "docs" / "make_notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_generator()


def test_notebook_is_what_the_generator_writes():
    assert make.NOTEBOOK.read_text(encoding="utf-8") == make.notebook(), "run `python docs/make_notebook.py`"


def printed_lines(cell: Any) -> list[str]:
    """The lines of both streams; an output may end in the middle of a line."""
    streams = {"stdout": "", "stderr": ""}
    for output in cell.outputs:
        if output.output_type == "stream":
            streams[output.name] += output.text
    return [line.rstrip() for text in streams.values() for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_notebook_runs_with_the_output_on_the_page(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", commands)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.reads(make.notebook(), as_version=4)
    nbclient.execute(notebook, cwd=str(tmp_path), timeout=900)

    blocks = [(kind, text) for kind, text in make.parts() if kind != "markdown"]
    cells = iter(printed_lines(cell) for cell in notebook.cells if cell.cell_type == "code")
    compared = 0
    for kind, text in blocks:
        if kind != "text":
            lines = next(cells)
            continue
        expected = [line for line in text.splitlines() if not VARIES.search(line)]
        assert [line for line in expected if line not in lines] == []
        compared += len(expected)
    assert compared > 40
