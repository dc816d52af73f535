"""What a run leaves in its folder that tells of its learning rates, read without torch, transformers or trust.

- `learning_rates.jsonl`, by `hf_sched.LearningRateLog`: every step, and what was planned;
- `trainer_state.json`, of the run and of its checkpoints: what was logged, and how long the run was to be;
- `training_args.bin`, likewise: what was requested;
- `scheduler.pt`, of the checkpoints: the curve and the peaks, where the schedule is one of ours.

The last two are pickles. They are read by an unpickler that makes nothing but inert records of plain values, so that a
folder from anywhere can be read, and one of a library that is not installed here.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any


class Inert:
    """What stands for an object of any class in a pickle: what it was made of, and its attributes."""

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

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """As a list of a class of its own is filled."""

    extend = append


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("builtins", "str"):  # how hf_sched's names are pickled
            return str
        return type(name, (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        return None  # the numbers of a tensor


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote: plain values as they are, everything else as `Inert`; no code of the file's runs.

    Raises:
        ValueError: It is no such file, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            return _Reader(io.BytesIO(archive.read(name))).load()
    except (zipfile.BadZipFile, pickle.UnpicklingError, ValueError, TypeError, EOFError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as what torch.save writes: {error}") from None
