"""How commands write: with colours to a terminal, plainly into a pipe, and as JSON where a machine reads."""

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
    """Where to write; lines are broken to fit a terminal only, so that `grep` finds a line whole."""
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
    """Answer what may go wrong with a picture: its format, a missing matplotlib, a folder that is not there."""
    if path.suffix.lower() not in FORMATS:
        raise ArgumentError(option, f"a file that ends in {', '.join(FORMATS)}", str(path))
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"`{option}` needs {error.name}: pip install 'hf_sched[plot]', or leave it away") from None
    except OSError as error:
        raise ValueError(f"`{option}` {str(path)!r} cannot be written: {error.strerror}") from None


class _WithoutTrailingBlanks(io.StringIO):
    """Rich fills each cell of a table up to its width."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        self.file.flush()
