"""Extends modules of other libraries after their import; a missing name turns off one feature, with one warning.

`after_import` costs nothing in processes that never import the library. `hook` and `around` are for optional features:
they collect functions, and `attach` calls those of a module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any


def after_import(package: str, actions: dict[str, Callable[[ModuleType], None]]) -> None:
    """Call each action with its module (a name such as `trainer` in the package), now or after the module's import."""

    def register() -> None:
        from wrapt import register_post_import_hook  # takes longer to import than hf_sched

        for module, action in actions.items():
            register_post_import_hook(action, f"{package}.{module}")

    if package in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _FirstImport(package, register))


class _FirstImport:
    """A finder that finds nothing, and calls a function right before the first import of a package."""

    def __init__(self, package: str, action: Callable[[], None]) -> None:
        self.package = package
        self.action: Callable[[], None] | None = action

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == self.package and self.action:
            # It stays in `sys.meta_path`: Python is iterating over that list and would skip the next finder.
            action, self.action = self.action, None
            action()


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
HOOKS: list[tuple[str, str, Callable[[Any], None]]] = []
"""A feature, a module, and the function that adds the feature to the module."""


def hook(feature: str, module: str) -> Decorator:
    """Decorate a function that extends a module; an AttributeError from it turns the feature off."""

    def add(extend: Callable[[Any], None]) -> Callable[[Any], None]:
        HOOKS.append((feature, module, extend))
        return extend

    return add


def around(feature: str, module: str, name: str) -> Decorator:
    """Decorate a function that replaces `name` in a module; it receives the original and the arguments of the call."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        HOOKS.append((feature, module, lambda owner: wrap(owner, name, function)))
        return function

    return add


def wrap(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Replace a dotted name such as `Trainer.log` in a module."""
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    @wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(original, *args, **kwargs)

    setattr(owner, last, wrapper)


def attach(module: ModuleType) -> None:
    """Attach the hooks of a module that has just been imported."""
    off: dict[str, list[str]] = {}
    for feature, name, extend in HOOKS:
        if name == module.__name__:
            try:
                extend(module)
            except AttributeError as error:
                off.setdefault(str(error), []).append(feature)
    for reason, features in off.items():
        import logging  # adds a tenth to the time of `import hf_sched`

        logging.getLogger(__name__).warning("hf_sched: %s is off: %s", " and ".join(dict.fromkeys(features)), reason)
