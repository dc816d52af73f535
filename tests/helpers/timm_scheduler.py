"""timm's schedulers by themselves: all of timm needs torchvision, which does not fit a torch without CUDA."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

# Where `make` puts it, out of the way of libraries that import timm whenever they find it.
FOLDER = str(Path(sys.prefix, "timm"))


def load() -> Any:
    """`timm.scheduler`; nothing else is left behind to see a timm that is half there.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """
    spec = PathFinder.find_spec("timm", [FOLDER, *sys.path])
    if spec is None:
        raise ModuleNotFoundError("No module named 'timm'", name="timm")
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "timm"}
    timm = ModuleType("timm")
    timm.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["timm"] = timm
    try:
        return importlib.import_module("timm.scheduler")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
            del sys.modules[name]
        sys.modules.update(before)


CosineLRScheduler = load().CosineLRScheduler
