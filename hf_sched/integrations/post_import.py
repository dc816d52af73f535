"""Runs code when a package is imported, at no cost for processes that never import it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(package: str, action: Callable[[], None]) -> None:
    """Call `action` now if the package is imported, else right before its first import.

    Actions register hooks with wrapt, whose own import takes longer than that of hf_sched.
    """
    if package in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _FirstImport(package, action))


class _FirstImport:
    """A finder that finds nothing but sees the import of a package."""

    def __init__(self, package: str, action: Callable[[], None]) -> None:
        self.package = package
        self.action: Callable[[], None] | None = action

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == self.package and self.action:
            # It stays in `sys.meta_path`: Python is iterating over that list and would skip the next finder.
            action, self.action = self.action, None
            action()
        return None
