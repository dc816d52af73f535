"""Reads the pickles of a run (`training_args.bin`, `scheduler.pt`) without importing or running anything they name.

A folder from an untrusted source can be audited this way, and so can a run of a library that is not installed.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any


class Inert:
    """Replaces an object of any class: keeps its constructor arguments (`made_of`) and its attributes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        made = super().__new__(cls)
        made.__dict__["made_of"] = args
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update({str(key): value for key, value in part.items()})

    def append(self, *items: Any) -> None:
        """Ignore the items of a list or dict subclass."""

    extend = __setitem__ = append


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        plain = {("collections", "OrderedDict"): dict, ("builtins", "str"): str}  # hf_sched pickles its names as str
        return plain.get((module, name)) or type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        return None  # the data of a tensor


def read_pickle(path: Path) -> Any:
    """Read what `torch.save` wrote: plain values as they are, every other object as `Inert`.

    Raises:
        ValueError: The file is damaged or has another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            return _Reader(io.BytesIO(archive.read(name))).load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, ValueError, TypeError, EOFError, AttributeError) as error:
        raise ValueError(f"{path} is not a file that torch.save wrote: {error}") from None
