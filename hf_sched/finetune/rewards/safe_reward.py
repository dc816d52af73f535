"""Keeps a training run going when a reward fails on a completion or takes too long."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

logger = logging.getLogger(__name__)

Completion = str | list[dict[str, Any]]
Reward = Callable[..., Any]
"""A reward as TRL calls it: a function `(completions, **columns) -> list[float | None]` of lists, possibly async."""


class SafeReward:
    """A reward as TRL calls it; returns None for a completion on which the function fails or exceeds its time limit.

    Args:
        name: The name in logs.
        function: A function of a batch, `(completions, **columns) -> list`, or, with `columns`, of one completion.
        time_limit: Seconds per completion; 0 for no limit.
        parameters: Additional keyword arguments for each call.
        columns: The columns of the data that a function of one completion takes; None for a function of a batch.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        time_limit: float,
        parameters: dict[str, Any] | None = None,
        columns: list[str] | None = None,
    ) -> None:
        self.__name__ = name
        self.function = function
        self.time_limit = time_limit
        self.parameters = parameters or {}
        self.columns = columns
        self._warned: set[str] = set()
        self._has_worked = False

    def __call__(self, completions: list[Completion], **columns: Any) -> list[float | None]:
        """Score each completion.

        Raises:
            ValueError: The very first call fails on each of several completions: the reward itself is wrong.
        """
        count = len(completions)
        if self.columns is None:
            # If the batch fails, one completion may be the cause: the others keep their reward in the loop below.
            with suppress(Exception), _time_limit(self.time_limit * max(count, 1)):
                return self._score(completions, columns)
        rewards: list[float | None] = []
        failures: list[Exception] = []
        for number, completion in enumerate(completions):
            row = {name: _row_of(value, number, count) for name, value in columns.items()}
            try:
                with _time_limit(self.time_limit):
                    rewards += self._score([completion], row)
            except Exception as error:
                rewards.append(None)
                failures.append(error)
                self._warn(error, completion)
        if len(failures) == count > 1 and not self._has_worked:
            what = f"{type(failures[0]).__name__}: {failures[0]}"
            raise ValueError(f"the reward {self.__name__!r} failed on each of {count} completions: {what}")
        self._has_worked = True
        return rewards

    def _score(self, completions: list[Completion], columns: dict[str, Any]) -> list[float | None]:
        if self.columns is None:
            rewards = self.function(completions=completions, **columns, **self.parameters)
        else:
            given = {name: columns[name][0] for name in self.columns}
            rewards = [self.function(text_of(completions[0]), **given, **self.parameters)]
        if len(rewards) != len(completions):
            raise ValueError(f"it returned {len(rewards)} rewards for {len(completions)} completions")
        return [None if reward is None else float(reward) for reward in rewards]

    def _warn(self, error: Exception, completion: Completion) -> None:
        kind = type(error).__name__
        late = f"took longer than {self.time_limit:g} s"
        what = late if isinstance(error, TimeoutError) else f"failed ({kind}: {error})"
        message = "the reward %r %s on the completion %r, which gets no reward; this kind of failure is reported once"
        if kind not in self._warned:
            logger.warning(message, self.__name__, what, text_of(completion)[:200])
        self._warned.add(kind)


def text_of(completion: Completion) -> str:
    """Return the text of a completion, given as text or as chat messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else ""
    return content if isinstance(content, str) else ""


def _row_of(value: Any, number: int, batch: int) -> Any:
    return [value[number]] if isinstance(value, list) and len(value) == batch else value


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    # A thread cannot be stopped from outside. A signal stops even a regular expression, but only in the main thread,
    # where the Trainer calls its rewards. There is no limit in other threads and on Windows.
    if not seconds or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
