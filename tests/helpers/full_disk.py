"""A disk on which nothing more can be written: `chmod` does not stop root, a limit on the size of files does."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback


def set_full(is_full: bool) -> None:
    """Let each write to a file of this process fail (EFBIG), or succeed again."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0 if is_full else most, most))


@contextmanager
def full_disk() -> Iterator[None]:
    set_full(True)
    try:
        yield
    finally:
        set_full(False)


class FreeDiskAtTheEnd(TrainerCallback):
    """Frees the disk after the last step: the model cannot be saved otherwise."""

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        set_full(False)
