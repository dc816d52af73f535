"""Reads the `training_args.bin` of a run without importing or running anything that the pickle names.

A folder from an untrusted source can be audited this way, and so can a run of a library that is not installed.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from hf_sched._run_files import explain_damage


class Inert:
    """Replaces an object of any class: keeps its constructor arguments (`made_of`) and its attributes."""

    def __new__(cls, *args: Any) -> Inert:
        made = super().__new__(cls)
        made.__dict__["made_of"] = args
        return made


def read_pickle(path: Path) -> Any:
    """Read what `torch.save` wrote: plain values as they are, objects of all other classes as `Inert`.

    Raises:
        ValueError: The file is damaged or has another format.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    with explain_damage(path):
        if not zipfile.is_zipfile(path):
            raise EOFError("torch.save did not write it, or not all of it")
        names = get_unsafe_globals_in_checkpoint(path)
        with safe_globals([(str if name == "builtins.str" else type(name, (Inert,), {}), name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
