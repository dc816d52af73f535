"""timm's schedulers by themselves: all of timm needs torchvision, which does not fit a torch without CUDA."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

try:
    from timm.scheduler import CosineLRScheduler
except ModuleNotFoundError as error:
    spec = importlib.util.find_spec("timm")
    if spec is None or error.name != "torchvision":
        raise
    # The package without what its `__init__` imports.
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        del sys.modules[name]
    timm = types.ModuleType("timm")
    timm.__spec__, timm.__path__ = spec, list(spec.submodule_search_locations or [])
    sys.modules["timm"] = timm
    CosineLRScheduler = importlib.import_module("timm.scheduler").CosineLRScheduler

__all__ = ["CosineLRScheduler"]
