"""timm's schedulers by themselves: all of timm needs torchvision, which does not fit a torch without CUDA."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


def load() -> Any:
    """`timm.scheduler`, without leaving an incomplete timm in `sys.modules`.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """
    # `make` installs it into its own folder, because other libraries import timm whenever they find it.
    spec = PathFinder.find_spec("timm", [str(Path(sys.prefix, "timm")), *sys.path])
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
