"""What the commands of all benchmarks share: their argument parser, Markdown tables, and the versions they ran with."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of a module, as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (columns, ["---"] * len(columns), *rows)]


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    versions = {"Python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
