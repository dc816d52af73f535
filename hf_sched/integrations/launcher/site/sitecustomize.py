"""Registers the schedules when transformers or diffusers is imported; `hf-sched run` puts it on PYTHONPATH.

Every Python process under `hf-sched run` imports this module at its start, whatever its version and packages. So it
imports nothing but what Python itself has already loaded, and then runs the `sitecustomize` that it hides.
"""

import sys
from _frozen_importlib import module_from_spec  # importlib.util takes longer to import
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # importing `typing` would cost every process time, so annotations are quoted
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_HOSTS = ("transformers", "diffusers")
_HERE = __file__.rpartition("sitecustomize")[0].rstrip("/\\")


class _HostFinder:
    """Finds a host with the finders that follow, and registers the schedules when the host is executed."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in _HOSTS:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    _register_on_execution(spec.loader)
                return spec
        return None


def _register_on_execution(loader: "Any") -> None:
    """Register schedules before a loader executes its module, and import the user's modules after."""

    def exec_module(module: "ModuleType") -> None:
        del loader.exec_module  # the class has the original
        registered = _register()
        loader.exec_module(module)
        if registered:
            from hf_sched.integrations.launcher.process import import_modules

            import_modules()

    loader.exec_module = exec_module


class _LendingFinder:
    """Finds packages that this environment lacks (hf_sched, wrapt, the user's modules) where `hf-sched run` did."""

    def __init__(self, folders: "dict[str, str]") -> None:
        self.folders = folders

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        return PathFinder.find_spec(name, [self.folders[name]]) if name in self.folders else None


def _register() -> bool:
    """Whether hf_sched could be imported; if not, the process continues without it, after one message."""
    import json
    import os

    if not any(isinstance(finder, _LendingFinder) for finder in sys.meta_path):
        lent = json.loads(os.environ.get("HF_SCHED_RUN", "{}")).get("lend", {})
        root = os.path.abspath(os.path.join(_HERE, "..", "..", "..", ".."))
        sys.meta_path.append(_LendingFinder({"hf_sched": root, **lent}))
    try:
        from hf_sched.integrations.launcher.process import register

        register()
    except Exception as error:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _HostFinder)]
        if sys.stderr is not None:
            print(
                f"hf-sched run: {sys.executable} cannot import hf_sched, so its schedules are unknown there "
                f"({type(error).__name__}: {error}); install hf_sched into that environment",
                file=sys.stderr,
            )
        return False
    return True


def _run_hidden_sitecustomize() -> None:
    others = [folder for folder in sys.path if folder.rstrip("/\\") != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _HostFinder())
_run_hidden_sitecustomize()
