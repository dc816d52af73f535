"""Keeps a training run going when a reward fails on a batch or takes too long."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any

logger = logging.getLogger(__name__)

Completion = str | list[dict[str, Any]]
Reward = Callable[..., Any]
"""A reward as TRL calls it: a function `(completions, **columns) -> list[float | None]` of lists, possibly async."""

CONTRACT = (
    "functions `(completions, **kwargs)` that return a list with a number or None for each completion; prompts and the "
    "columns of the data arrive as lists in keyword arguments"
)
SHARE = 1 / 8  # of the time that is left in a call, for one completion of a function of one completion


@dataclass(eq=False)
class SafeReward:
    """A reward as TRL calls it, with a time limit.

    If the function fails or exceeds the limit, every completion of the batch gets None, no reward: a function of a
    batch may compare its completions, so it is never called for one of them alone. A function of one completion
    leaves the others their reward.

    Args:
        name: The name in logs.
        function: A function of a batch, `(completions, **columns) -> list`, or, if `is_single`, of the text of one
            completion and of `columns`.
        time_limit: Seconds per call, for the whole batch; 0 for no limit.
        parameters: Additional keyword arguments for each call.
        columns: The columns of the data that the function needs.
        is_single: Whether it is a function of one completion.
        has_worked: Whether it has scored a batch; failures on later ones do not end the run.
    """

    name: str
    function: Callable[..., Any]
    time_limit: float
    parameters: dict[str, Any] = field(default_factory=dict)
    columns: Sequence[str] = ()
    is_single: bool = False
    has_worked: bool = False
    _warned: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.__name__ = self.name  # TRL logs this name

    def __call__(self, completions: list[Completion], **columns: Any) -> list[float | None]:
        """Score each completion.

        Raises:
            ValueError: The function returns a wrong number of rewards, or fails before it has ever worked.
        """
        if self.is_single:
            return self._score_each(completions, columns)
        try:
            given = {**columns, **self.parameters}
            rewards = _numbers(_call_within(self.time_limit or None, self.function, completions=completions, **given))
        except Exception as error:
            return self._without_rewards(error, completions)
        return self._accept(rewards, completions)

    async def score_async(self, completions: list[Completion], **columns: Any) -> list[float | None]:
        """Score each completion with an async function, as `__call__` does with another one."""
        try:
            call = self.function(completions=completions, **{**columns, **self.parameters})
            rewards = _numbers(await asyncio.wait_for(call, self.time_limit or None))
        except Exception as error:
            return self._without_rewards(error, completions)
        return self._accept(rewards, completions)

    def _score_each(self, completions: list[Completion], columns: dict[str, Any]) -> list[float | None]:
        rewards: list[float | None] = []
        failures: list[Exception] = []
        end = time.monotonic() + self.time_limit
        for number, completion in enumerate(completions):
            given = [columns[name][number] for name in self.columns]
            arguments = [text_of(completion), *(value if value is None else str(value) for value in given)]
            limit = SHARE * (end - time.monotonic()) if self.time_limit else None
            try:
                is_whole = None not in arguments
                rewards.append(_call_within(limit, self.function, *arguments, **self.parameters) if is_whole else None)
            except Exception as error:
                rewards.append(None)
                failures.append(error)
                self._warn(error, f"the completion {text_of(completion)[:200]!r}")
        if failures and len(failures) == len(completions) and not self.has_worked:
            raise self._always_fails(failures[0]) from failures[0]
        self.has_worked = self.has_worked or len(failures) < len(completions)
        return rewards

    def _accept(self, rewards: list[float | None], completions: list[Completion]) -> list[float | None]:
        if len(rewards) != len(completions):
            found = f"{len(rewards)} rewards for {len(completions)} completions"
            raise ValueError(f"the reward {self.name!r} returned {found}; rewards must be {CONTRACT}")
        self.has_worked = True
        return rewards

    def _without_rewards(self, error: Exception, completions: list[Completion]) -> list[float | None]:
        if not self.has_worked:
            raise self._always_fails(error) from error
        self._warn(error, f"a batch of {len(completions)} completions")
        return [None] * len(completions)

    def _always_fails(self, error: Exception) -> ValueError:
        hint = "set a longer `time_limit`" if _is_late(error) else f"rewards must be {CONTRACT}"
        return ValueError(f"the reward {self.name!r} {self._describe(error)} on its first batch; {hint}")

    def _warn(self, error: Exception, what: str) -> None:
        kind = type(error).__name__
        if kind not in self._warned:
            message = "the reward %r %s on %s, which gets no reward; this kind of failure is reported once"
            logger.warning(message, self.name, self._describe(error), what)
        self._warned.add(kind)

    def _describe(self, error: Exception) -> str:
        late = f"took longer than its time limit ({self.time_limit:g} s per call)"
        return late if _is_late(error) else f"failed ({type(error).__name__}: {error})"


def for_trl(reward: SafeReward) -> Reward:
    """Return a reward whose function is async as a coroutine function, which TRL recognizes and awaits."""

    async def score(completions: list[Completion], **columns: Any) -> list[float | None]:
        return await reward.score_async(completions, **columns)

    return update_wrapper(score, reward, assigned=("__name__",))


def text_of(completion: Completion) -> str:
    """Return the text of a completion, given as text or as chat messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1].get("content") if completion else ""
    return content if isinstance(content, str) else ""


def _numbers(scores: Any) -> list[float | None]:
    return [None if score is None else float(score) for score in scores]


def _is_late(error: Exception) -> bool:
    return isinstance(error, (TimeoutError, asyncio.TimeoutError))  # two classes before Python 3.11


class _Expired(BaseException):
    """Raised by the timer. No `Exception`: libraries such as math-verify catch those and go on."""


def _call_within(seconds: float | None, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function, and raise a TimeoutError when the time is over; None for no limit."""
    if seconds is not None and seconds <= 0:
        raise TimeoutError
    # A thread cannot be stopped from outside. A signal stops even a regular expression, but only in the main thread,
    # where the Trainer calls its rewards. There is no limit in other threads and on Windows.
    is_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not hasattr(signal, "setitimer") or not is_main:
        return function(*args, **kwargs)

    def stop(*_: Any) -> None:
        raise _Expired

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1)  # and each second, should it be caught
            return function(*args, **kwargs)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Expired:
        raise TimeoutError from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
