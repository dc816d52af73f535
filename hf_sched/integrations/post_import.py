"""Does something once a package is imported, at no cost for processes that never do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(package: str, then: Callable[[], None]) -> None:
    """Call `then` now if the package is loaded, else right before it is first imported.

    What `then` does is mostly to register hooks with wrapt, which takes longer to import than all of hf_sched.
    """
    if package in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, _Watch(package, then))


class _Watch:
    """A finder that finds nothing."""

    def __init__(self, package: str, then: Callable[[], None]) -> None:
        self.package = package
        self.then: Callable[[], None] | None = then

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == self.package and self.then:
            # It stays among the finders: Python is walking through them just now, and would miss one.
            then, self.then = self.then, None
            then()
        return None
