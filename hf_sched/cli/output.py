"""Output of the commands: with colors on a terminal, plain in a pipe, JSON for programs."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from hf_sched.schedules.validation import ArgumentError


def console() -> Console:
    """A console that wraps lines on a terminal only, so that `grep` finds whole lines."""
    found = Console(highlight=False, emoji=False)
    if found.is_terminal:
        return found
    return Console(file=_WithoutTrailingBlanks(sys.stdout), highlight=False, emoji=False, width=1000, no_color=True)


def print_json(value: Any) -> None:
    """Write plain values as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


FORMATS = (".png", ".svg", ".pdf")


@contextmanager
def writing_a_picture(option: str, path: Path) -> Iterator[None]:
    """Turn the usual failures of writing a picture into errors about the option."""
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(option, f"a file that ends in {', '.join(FORMATS)}", str(path))
    try:
        yield
    except ModuleNotFoundError as error:
        hint = "pip install 'hf_sched[plot]', or omit the option"
        raise ArgumentError(option, rule=f"needs {error.name}", hint=hint) from None
    except OSError as error:
        raise ArgumentError(option, received=str(path), rule="cannot be written", hint=str(error.strerror)) from None


class _WithoutTrailingBlanks(io.StringIO):
    """Removes the blanks that rich fills the cells of a table with."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        self.file.flush()
