"""Markdown tables, and the versions and the hardware that figures were measured with."""

from __future__ import annotations

import importlib.metadata
import platform


def table_head(*columns: str) -> list[str]:
    """Return the first two lines of a Markdown table."""
    return [table_row(*columns), table_row(*["---"] * len(columns))]


def table_row(*cells: str) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    versions = {"Python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
