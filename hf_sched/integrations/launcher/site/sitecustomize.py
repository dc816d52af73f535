"""Makes our schedules known where transformers or diffusers is imported; `hf-sched run` puts it on PYTHONPATH.

Every Python process below imports it at its start, whatever its version and installed packages. So it imports nothing
by itself, watches imports until one of the two is meant, and runs the `sitecustomize` that it stands in front of.
"""

import sys
from _frozen_importlib import module_from_spec  # as importlib.util, which takes a while to import
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # annotations stand in quotes, since each import here is paid for by every process
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_told: "list[bool]" = []
_HOSTS = ("transformers", "diffusers")
_HERE = __file__.rpartition("sitecustomize")[0].rstrip("/\\")


class _WhenAHostIsImported:
    """Finds a host by the finders behind it, and has our schedules registered as it is executed; not if only found."""

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
                    spec.loader = _Registering(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Registering:
    """A host's loader; registers schedules right before it runs the host, and the user's own right behind."""

    def __init__(self, loader: "Any") -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader  # as if nobody had stood in between
        registered = _register()
        self.loader.exec_module(module)
        if registered:
            from hf_sched.integrations.launcher.process import import_modules

            import_modules()


class _Lender:
    """Finds what this environment does not have (hf_sched, wrapt, a user's modules) where `hf-sched run` found it."""

    def __init__(self, folders: "dict[str, str]") -> None:
        self.folders = folders

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        return PathFinder.find_spec(name, [self.folders[name]]) if name in self.folders else None


def _register() -> bool:
    """Whether hf_sched could be imported; a process where it cannot goes on without it, with a message."""
    import json
    import os

    if not any(isinstance(finder, _Lender) for finder in sys.meta_path):
        lent = json.loads(os.environ.get("HF_SCHED_RUN", "{}")).get("lend", {})
        root = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
        sys.meta_path.append(_Lender({"hf_sched": root, **lent}))
    try:
        from hf_sched.integrations.launcher.process import register

        register()
    except Exception as error:
        if not _told:
            _told.append(True)
            _tell(error)
        return False
    return True


def _tell(error: Exception) -> None:
    if sys.stderr is not None:
        print(
            f"hf-sched run: {sys.executable} cannot import hf_sched, so its schedules are unknown there "
            f"({type(error).__name__}: {error}): install hf_sched into that environment",
            file=sys.stderr,
        )


def _run_the_next_sitecustomize() -> None:
    others = [folder for folder in sys.path if folder.rstrip("/\\") != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _WhenAHostIsImported())
_run_the_next_sitecustomize()
