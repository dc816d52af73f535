"""Names and formats of the files that a run keeps in its `output_dir`, and how to write them atomically.

Several layers read these files, so their formats live here. This module imports the standard library only.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LEARNING_RATES = "learning_rates.jsonl"
"""Written by `LearningRateLog`: the actual and the planned learning rate of each step."""
RUN = "run.json"
"""Written by the recipes: arguments, versions, and one entry for each start or resume."""
# Files of the live cooldown. The status begins with `_`, so that the Trainer does not push it: it names a machine.
COOLDOWN_STATUS = "_live_control.json"
COOLDOWN_REQUEST = "cooldown.json"
COOLDOWN_DONE = "cooldown.done.json"
COOLDOWN_REJECTED = "cooldown.refused.json"

_FAILED: set[Path] = set()


@contextmanager
def training_continues(path: Path) -> Iterator[None]:
    """Log a warning, once for each file, instead of stopping the training if a file of the run cannot be used."""
    try:
        yield
    except OSError as error:
        if path not in _FAILED:
            _FAILED.add(path)
            logger.warning("%s cannot be read or written: %s; training continues", path, error)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash in between, finds either the old or the new content."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()  # a part of it, on a full disk
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object; see `write_text`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Raise a ValueError that names a file of a run if its content is damaged or not what it should be."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {str(error).partition(chr(10))[0]}") from None
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged or of another program: {error!r}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: The file is damaged or does not hold a JSON object.
    """
    with explain_damage(path):
        value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, received a {type(value).__name__}")
    return value


def read_trainer_state(path: Path) -> dict[str, Any]:
    """Read a `trainer_state.json`; a ValueError says that it is damaged."""
    state = read_json(path)
    types = {"global_step": int, "max_steps": int, "log_history": list}
    if not all(isinstance(state.get(name), cls) for name, cls in types.items()):
        raise ValueError(f"{path} is damaged: it has no {', '.join(types)}")
    return state


def read_learning_rates(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a `learning_rates.jsonl`. Damaged lines are skipped."""
    return [row for line in path.read_bytes().splitlines() if (row := read_learning_rates_row(line)) is not None]


def read_learning_rates_row(line: bytes) -> dict[str, Any] | None:
    """Read a line; None if it is damaged, as the last one that a killed process left incomplete."""
    try:
        row = json.loads(line)
        is_row = type(row["session"]["step"] if "session" in row else row["step"]) is int
        return row if is_row and ("session" in row or isinstance(row["rates"], list)) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
