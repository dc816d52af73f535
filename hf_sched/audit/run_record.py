"""What a run leaves in its folder that tells of its learning rates, read without torch, transformers or trust.

- `learning_rates.jsonl`, by `hf_sched.LearningRateLog`: every step, and what was planned;
- `trainer_state.json`, of the run and of its checkpoints: what was logged, and how long the run was to be;
- `training_args.bin`, likewise: what was asked for;
- `scheduler.pt`, of the checkpoints: the curve and the peaks, where the schedule is one of ours.

The last two are pickles. They are read by an unpickler that makes nothing but inert records of plain values, so that a
folder from anywhere can be read, and one of a library that is not installed here.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

LEARNING_RATES = "learning_rates.jsonl"


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


def read_json(path: Path) -> dict[str, Any]:
    """A mapping in a JSON file.

    Raises:
        ValueError: It is none.
    """
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is damaged: {error}") from None
    if not isinstance(read, dict):
        raise ValueError(f"{path}: must be a mapping, received {type(read).__name__}")
    return read


def read_learning_rates(path: Path) -> list[dict[str, Any]]:
    """The lines of a `learning_rates.jsonl`; one that was cut off when the process was killed is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and ("step" in row or "session" in row):
            rows.append(row)
    return rows
