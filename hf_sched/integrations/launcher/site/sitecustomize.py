"""Registers the schedules when transformers or diffusers is imported; `hf-sched run` puts it on PYTHONPATH.

Every Python process under `hf-sched run` imports this module at its start, whatever its version and packages. So it
imports nothing but what Python itself has already loaded, and then runs the `sitecustomize` that it hides.
"""

import sys
from _frozen_importlib import module_from_spec  # importlib.util takes longer to import
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # importing `typing` would cost every process time, so annotations are quoted
if TYPE_CHECKING:
    from typing import Any

_HOSTS = ("transformers", "diffusers")
_HERE = __file__.rpartition("sitecustomize")[0].rstrip("/\\")


class _HostFinder:
    """Finds a host with the finders that follow, and registers the schedules when the host is executed."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name not in _HOSTS:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _register_on_execution(spec.loader)
                return spec
        return None


class _LendingFinder:
    """Finds packages that this environment lacks (hf_sched, wrapt, the user's modules) where `hf-sched run` did."""

    def __init__(self, folders: "dict[str, str]") -> None:
        self.folders = folders

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        return PathFinder.find_spec(name, [self.folders[name]]) if name in self.folders else None


def _register_on_execution(loader: "Any") -> None:
    """Register schedules before a loader executes its module, and import the modules of `--import` after."""

    def exec_module(module: "Any") -> None:
        del loader.exec_module  # the class has the original
        names = _register()
        loader.exec_module(module)
        for name in names:
            try:
                __import__(name)
            except Exception as error:
                # Many libraries read an ImportError as "not installed" and hide it.
                _report(f"`--import {name}` failed: {type(error).__name__}: {error}")
                raise

    loader.exec_module = exec_module


def _register() -> "list[str]":
    """Import hf_sched, which registers its schedules; the modules to import after it, none if hf_sched is missing."""
    import json
    import os

    given = json.loads(os.environ.get("HF_SCHED_RUN", "{}"))
    if not any(isinstance(finder, _LendingFinder) for finder in sys.meta_path):
        root = os.path.abspath(os.path.join(_HERE, "..", "..", "..", ".."))
        sys.meta_path.append(_LendingFinder({"hf_sched": root, **given.get("lend", {})}))
    try:
        import hf_sched  # noqa: F401 (registers the schedules)
    except Exception as error:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _HostFinder)]
        _report(
            f"{sys.executable} cannot import hf_sched, so its schedules are unknown there "
            f"({type(error).__name__}: {error}); install hf_sched into that environment"
        )
        return []
    return given.get("import", [])  # type: ignore[no-any-return]


def _report(message: object) -> None:
    print(f"hf-sched run: {message}", file=sys.stderr)


def _run_hidden_sitecustomize() -> None:
    others = [folder for folder in sys.path if folder.rstrip("/\\") != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _HostFinder())
_run_hidden_sitecustomize()
