"""A guard around a reward: no completion, however strange, ends a run or holds it up."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Completion = str | list[dict[str, Any]]
Reward = Callable[..., Any]
"""As TRL calls it: `(completions, **columns)`, each a list; it returns a list of numbers or None, or is a coroutine."""


class GuardedReward:
    """A reward as TRL calls it; a completion that it fails on, or takes too long for, gets no verdict (None).

    Args:
        name: What it is logged as.
        function: Either of a batch, as TRL's rewards: `(completions, **columns) -> list`; or of one completion.
        time_limit: Seconds for a completion; 0 for none.
        parameters: Further keyword arguments for each call.
        columns: Where it is a function of one completion, the columns of the data that it takes; None for a batch.
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
        """A number or None for each completion."""
        if self.columns is None:
            # If this fails, one completion may be to blame: the others are to keep their reward.
            with suppress(Exception), _time_limit(self.time_limit * max(len(completions), 1)):
                return self._whole_batch(completions, columns)
        failures: list[Exception] = []
        rewards = [self._one(number, each, completions, columns, failures) for number, each in enumerate(completions)]
        if len(failures) == len(completions) > 1 and not self._has_worked:
            how = f"the reward {self.__name__!r} failed on each of {len(completions)} completions"
            raise ValueError(f"{how}: {type(failures[0]).__name__}: {failures[0]}") from failures[0]
        self._has_worked = True
        return rewards

    def _whole_batch(self, completions: list[Completion], columns: dict[str, Any]) -> list[float | None]:
        given = self.function(completions=completions, **columns, **self.parameters)
        if len(given) != len(completions):
            raise ValueError(f"it gave {len(given)} rewards for {len(completions)} completions")
        return [_number(reward) for reward in given]

    def _one(
        self,
        number: int,
        completion: Completion,
        completions: list[Completion],
        columns: dict[str, Any],
        failures: list[Exception],
    ) -> float | None:
        try:
            with _time_limit(self.time_limit):
                if self.columns is None:
                    row = {name: _of_row(value, number, len(completions)) for name, value in columns.items()}
                    return self._whole_batch([completion], row)[0]
                row = {name: columns[name][number] for name in self.columns}
                return _number(self.function(text_of(completion), **row, **self.parameters))
        except Exception as error:
            failures.append(error)
            self._warn(error, completion)
            return None

    def _warn(self, error: Exception, completion: Completion) -> None:
        kind = type(error).__name__
        if kind in self._warned:
            return
        self._warned.add(kind)
        too_long = isinstance(error, TimeoutError)
        what = f"took longer than {self.time_limit:g} s" if too_long else f"failed ({kind}: {error})"
        warnings.warn(
            f"the reward {self.__name__!r} {what} on the completion {text_of(completion)[:200]!r}; it counts as no "
            "verdict, and further ones like it are not told of",
            UserWarning,
            stacklevel=2,
        )


def text_of(completion: Completion) -> str:
    """The text of a completion, which comes as text or as chat messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else ""
    return content if isinstance(content, str) else ""


def _of_row(value: Any, number: int, batch: int) -> Any:
    return [value[number]] if isinstance(value, list) and len(value) == batch else value


def _number(reward: Any) -> float | None:
    return None if reward is None else float(reward)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    # A thread cannot be stopped from outside; a signal stops even a regular expression, but only in the main thread,
    # where the Trainer calls its rewards. Elsewhere, and on Windows, there is no limit.
    if not seconds or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
