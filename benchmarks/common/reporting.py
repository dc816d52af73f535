"""What the commands of all benchmarks share: their argument parser, Markdown and CSV tables, and provenance."""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is the docstring of a module, as it is written."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def table_head(*columns: str) -> list[str]:
    """Return the first two lines of a Markdown table."""
    return [table_row(*columns), table_row(*["---"] * len(columns))]


def table_row(*cells: str) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same keys."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(file: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote."""
    with file.open(newline="", encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    versions = {"Python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
