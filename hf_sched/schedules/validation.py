"""Reading arguments: every value that a user writes passes through one of these readers, once.

A reader takes the argument's name and the value, and gives back the value in its one form or raises a `ValueError` that
names the argument, says what is allowed and shows what was received. Numbers may arrive as text, since YAML reads
`1e-7` as text.

A parameter of a schedule says what it takes by its annotation: one of the aliases at the end (`Ratio`, `Count`, ...),
or plain `float`, `int`.
"""

from __future__ import annotations

import math
import numbers
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, TypeAlias

_NOT_GIVEN = ...  # a singleton, so that an unpickled error still has no value


class ArgumentError(ValueError):
    """A wrong argument: "`floor_ratio` must be a number from 0 to 1, received 2; ...".

    Args:
        name: The argument's name.
        allowed: What it may be; completes the phrase "must be ...".
        received: The value. Omit it if there is none to show.
        hint: How to correct it, as a clause without a final period.
        rule: Replaces "must be {allowed}" where another phrase fits better: "is given twice".
    """

    def __init__(
        self, name: str, allowed: str = "", received: object = _NOT_GIVEN, hint: str = "", rule: str = ""
    ) -> None:
        super().__init__(name, allowed, received, hint, rule)  # all of them, so that the error can be pickled
        self.name = name
        self.allowed = allowed
        self.received = received
        self.hint = hint
        self.rule = rule or f"must be {allowed}"

    @property
    def detail(self) -> str:
        """The message without the argument's name, for a reader who sees the name already."""
        received = "" if self.received is _NOT_GIVEN else f", received {self.received!r}"
        return f"{self.rule}{received}{'; ' if self.hint else ''}{self.hint}"

    def __str__(self) -> str:
        return f"`{self.name}` {self.detail}"


def format_value(value: object) -> str:
    """A value that was read, as messages show it: shares and epochs as text writes them."""
    if isinstance(value, (Fraction, Epochs)):
        return repr(f"{float(value * 100):g}%" if isinstance(value, Fraction) else str(value))
    return repr(value)


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """What ends a sentence about a wrong word: `; did you mean 'x'?` where a known word is near, else a full stop."""
    import difflib  # only needed for errors

    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else "."


class Reader:
    """Base of the readers: call it with a name and a value."""

    def __call__(self, name: str, value: object) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Number(Reader):
    """A finite number between two bounds, as a float."""

    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    """Whether the lower bound itself is shut out."""

    def __call__(self, name: str, value: object) -> float:
        number = _as_float(value)
        below = number is not None and (number <= self.low if self.above_low else number < self.low)
        if number is None or below or number > self.high:
            raise ArgumentError(name, self._allowed(), value)
        return number

    def _allowed(self) -> str:
        if self.low > -math.inf and self.high < math.inf:
            if self.above_low:
                return f"a number above {self.low:g}, {self.high:g} at most"
            return f"a number from {self.low:g} to {self.high:g}"
        if self.low > -math.inf:
            return f"a finite number above {self.low:g}" if self.above_low else f"a finite number, {self.low:g} or more"
        return "a finite number"


@dataclass(frozen=True)
class Whole(Reader):
    """A whole number, as an int; `500.0` and `"500"` are whole numbers too."""

    low: int = 0
    high: int = 2**53  # up to here every whole number is a float, too

    def __call__(self, name: str, value: object) -> int:
        number: int | None
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            number = int(value)
        else:
            approximate = _as_float(value)
            number = int(approximate) if approximate is not None and approximate.is_integer() else None
        if number is None or number < self.low:
            raise ArgumentError(name, f"a whole number, {self.low} or more", value)
        if number > self.high:
            raise ArgumentError(name, f"a whole number from {self.low} to {self.high}", value)
        return number


@dataclass(frozen=True)
class Epochs:
    """A duration in passes over the training data; text writes it `1ep`."""

    number: Fraction

    def __str__(self) -> str:
        return f"{float(self.number):g}ep"


class EpochsUnknown(ValueError):
    """A duration is in epochs where nobody knows how many steps an epoch has."""


@dataclass(frozen=True)
class DurationReader(Reader):
    """A number of optimizer steps (an int), a share of the run (a `Fraction` from 0 to 1) or `Epochs`.

    `500` and `"500"` are steps; `0.05`, `"0.05"` and `"5%"` are shares; `"1ep"` is an epoch. Shares and epochs stay
    exact, so that 0.07 of 100 steps is 7.
    """

    above_zero: bool = False

    def __call__(self, name: str, value: object) -> int | Fraction | Epochs:
        allowed = 'a number of steps (500), a share of the run (0.05 or "5%") or epochs ("1ep"), '
        allowed += "above 0" if self.above_zero else "0 or more"
        text = value.strip() if isinstance(value, str) else ""
        for unit, most in (("%", 100.0), ("ep", 2.0**53)):
            if text.endswith(unit):
                number = _as_float(text.removesuffix(unit))
                if number is None or not 0 <= number <= most or (self.above_zero and number == 0):
                    raise ArgumentError(name, allowed, value)
                exact = Fraction(repr(number))
                return exact / 100 if unit == "%" else Epochs(exact)
        if isinstance(value, (Fraction, Epochs)):
            exact = value if isinstance(value, Fraction) else value.number
            if exact < 0 or (isinstance(value, Fraction) and exact > 1) or (self.above_zero and exact == 0):
                raise ArgumentError(name, allowed, value)
            return value
        number = _as_float(value)
        if number is None or not 0 <= number <= 2**53 or (number >= 1 and not number.is_integer()):
            raise ArgumentError(name, allowed, value)
        if number == 0 and self.above_zero:
            raise ArgumentError(name, allowed, value)
        return Fraction(repr(number)) if 0 < number < 1 else int(number)


@dataclass(frozen=True)
class OneOf(Reader):
    """One of a few words."""

    words: tuple[str, ...]

    def __call__(self, name: str, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(
                f"{ArgumentError(name, 'one of ' + ', '.join(self.words), value)}{did_you_mean(value, self.words)}"
            )
        return value


@dataclass(frozen=True)
class TextReader(Reader):
    """Any text."""

    def __call__(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise ArgumentError(name, "text", value)
        return value


@dataclass(frozen=True)
class Flag(Reader):
    """True or False."""

    def __call__(self, name: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise ArgumentError(name, "true or false", value)
        return value


@dataclass(frozen=True)
class MappingReader(Reader):
    """Arguments by name, as a dict of one's own."""

    def __call__(self, name: str, value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ArgumentError(name, "a mapping of arguments by name", value)
        return dict(value)


@dataclass(frozen=True)
class ListOf(Reader):
    """One or more values of a kind, as a tuple."""

    reader: Reader

    def __call__(self, name: str, value: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise ArgumentError(name, "a list of one or more", value)
        return tuple(self.reader(f"{name}[{i}]", item) for i, item in enumerate(value))


def as_steps(
    duration: int | float | str | Fraction | Epochs,
    num_training_steps: int,
    steps_per_epoch: float | None = None,
    name: str = "duration",
) -> int:
    """A duration in optimizer steps; shares and epochs are rounded to the nearest, half a step upwards.

    Raises:
        EpochsUnknown: The duration is in epochs and `steps_per_epoch` is None.
    """
    duration = DurationReader()(name, duration)
    if isinstance(duration, Fraction):
        return round_half_up(duration * num_training_steps)
    if isinstance(duration, Epochs):
        return epochs_as_steps(name, duration, steps_per_epoch)
    return duration


def epochs_as_steps(name: str, epochs: Epochs, steps_per_epoch: float | None) -> int:
    """Epochs in optimizer steps, to the nearest; any part of an epoch is a step at least.

    Raises:
        EpochsUnknown: `steps_per_epoch` is None.
    """
    if steps_per_epoch is None:
        raise EpochsUnknown(
            f"`{name}` is in epochs ({epochs}), but nobody said how many steps an epoch has: a Trainer knows it while "
            "it trains; elsewhere give `steps_per_epoch`, or write steps (500) or a share of the run (5%)"
        )
    steps = epochs.number * Fraction(Number(0, above_low=True)("steps_per_epoch", steps_per_epoch))
    return max(round_half_up(steps), 1) if steps else 0


_OF_TYPES: dict[object, Reader] = {float: Number(), int: Whole(), str: TextReader(), bool: Flag()}


def reader_of(hint: object) -> Reader | None:
    """The reader that an annotation names, also within `... | None`."""
    if hint in _OF_TYPES:
        return _OF_TYPES[hint]
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        found = part if isinstance(part, Reader) else reader_of(part)
        if found:
            return found
    return None


def round_half_up(number: Fraction) -> int:
    """Rounded, half a step upwards."""
    return math.floor(number + Fraction(1, 2))


def _as_float(value: object) -> float | None:
    """The value as a finite float; None where it is no such number (bool is none)."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


Ratio: TypeAlias = Annotated[float, Number(0, 1)]
"""A share from 0 to 1, usually of the peak."""
Positive: TypeAlias = Annotated[float, Number(0, above_low=True)]
"""A number above 0."""
Rate: TypeAlias = Annotated[float, Number(0)]
"""A learning rate: 0 or more."""
Count: TypeAlias = Annotated[int, Whole(1)]
"""How many of something: 1 or more."""
Duration: TypeAlias = Annotated[int | float | str | Fraction | Epochs, DurationReader()]
"""Steps, a share of the run, or epochs."""
Period: TypeAlias = Annotated[int | float | str | Fraction | Epochs, DurationReader(above_zero=True)]
"""Likewise, but not nothing."""
Keywords: TypeAlias = Annotated[Mapping[str, Any], MappingReader()]
"""Arguments by name."""
