"""Validation of arguments: every value that a user writes passes through one reader, once.

`reader(name, value)` returns the value in its canonical form, or raises an `ArgumentError` that names the argument, the
allowed values and the value received. Numbers may be text, because YAML reads `1e-7` as text.

The annotation of a parameter chooses its reader: one of the aliases at the end of this file (`Ratio`, `Count`, ...), or
plain `float`, `int`, `str` and `bool`.
"""

from __future__ import annotations

import math
import numbers
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, TypeAlias

_LARGEST = 2**53  # every whole number up to here has an exact float


class NotGiven:
    """Marks an `ArgumentError` without a value to show. The class itself is the marker."""


class ArgumentError(ValueError):
    """A wrong argument: "`floor_ratio` must be a number from 0 to 1, received 2; ...".

    Code reads the attributes and never the text. Command lines and recipes render it.

    Args:
        name: The argument's name.
        allowed: The allowed values; completes the phrase "must be ...".
        received: The value. Omit it if there is none to show.
        hint: How to correct it, as a clause without a final period.
        rule: Replaces "must be {allowed}" where another phrase fits better: "is required".
    """

    def __init__(
        self, name: str, allowed: str = "", received: object = NotGiven, hint: str = "", rule: str = ""
    ) -> None:
        super().__init__(name, allowed, received, hint, rule)  # pickle creates the copy from these
        self.name = name
        self.allowed = allowed
        self.received = received
        self.hint = hint
        self.rule = rule or f"must be {allowed}"

    @property
    def detail(self) -> str:
        """The message without the argument's name, for a place that shows the name already."""
        received = "" if self.received is NotGiven else f", received {_show(self.received)}"
        return f"{self.rule}{received}{'; ' if self.hint else ''}{self.hint}"

    def __str__(self) -> str:
        return f"`{self.name}` {self.detail}"


class DurationUnknown(ArgumentError):
    """A duration is in epochs, samples or tokens, but how many of them make an optimizer step is not known yet."""


def suggest(word: object, known: Iterable[str], more: str = "") -> str:
    """A hint for a misspelt word, "did you mean 'x'?" if a known word is similar, followed by `more`."""
    import difflib  # only needed for errors

    words = {word.casefold(): word for word in known}
    similar = difflib.get_close_matches(str(word).casefold(), words, n=1)
    return f"did you mean '{words[similar[0]]}'? {more}".strip() if similar else more


# What transformers' own schedules call the arguments of ours.
_OUR_NAMES = {
    "min_lr_rate": "floor_ratio",
    "min_lr_ratio": "floor_ratio",
    "lr_end": "min_lr",
    "num_decay_steps": "decay",
}


def unknown_argument(name: str, value: object, known: Iterable[str], owner: str) -> ArgumentError:
    """The error for an argument that `owner` does not have; `known` are those that it has."""
    meant = _OUR_NAMES.get(name, name)
    hint = suggest(meant if meant in known else name, known, f"{owner} takes {', '.join(known) or 'no arguments'}")
    return ArgumentError(name, received=value, hint=hint, rule=f"is not an argument of {owner}")


class Reader:
    """Checks a value and converts it to its canonical form. Subclass it for arguments of your own schedules."""

    allowed: str
    """The allowed values in words; completes the phrase "must be ..."."""

    def __call__(self, name: str, value: object) -> Any:
        """Return the canonical form of `value`.

        Raises:
            ArgumentError: The value is not allowed.
        """
        raise NotImplementedError


class Number(Reader):
    """A finite number between two bounds, as a float. Between 0 and 1, `"10%"` is 0.1.

    Args:
        low: The lower bound.
        high: The upper bound, which is allowed.
        above_low: Whether the lower bound itself is excluded.
        unit: What the number is, for messages: "a learning rate".
    """

    def __init__(self, low: float = -math.inf, high: float = math.inf, above_low: bool = False, unit: str = "") -> None:
        self.low, self.high, self.above_low = low, high, above_low
        self.allowed = unit or ("a number" if high < math.inf else "a finite number")
        if -math.inf < low and high < math.inf and not above_low:
            self.allowed += f" from {low:g} to {high:g}"
        elif low > -math.inf:
            self.allowed += f" above {low:g}" if above_low else f", {low:g} or more"
        if high < math.inf and (above_low or low == -math.inf):
            self.allowed += f", {high:g} at most"

    def __call__(self, name: str, value: object) -> float:
        number = _as_float(percentage_as_fraction(value) if (self.low, self.high) == (0, 1) else value)
        if number is None or number < self.low or number > self.high or (self.above_low and number == self.low):
            raise ArgumentError(name, self.allowed, value)
        return number


class Whole(Reader):
    """A whole number, as an int; `500.0` and `"500"` are whole numbers as well."""

    def __init__(self, low: int = 0) -> None:
        self.low = low
        self.allowed = f"a whole number, {low} or more"

    def __call__(self, name: str, value: object) -> int:
        number = _as_float(value)
        if number is None or not number.is_integer() or not self.low <= number <= _LARGEST:
            raise ArgumentError(name, self.allowed, value)
        return int(number)


@dataclass(frozen=True)
class Amount:
    """A duration in epochs, samples or tokens, written as `1ep`, `100k samples` or `500e6tok`."""

    number: Fraction
    unit: str = "ep"
    """One of `UNITS`."""

    def __str__(self) -> str:
        return f"{float(self.number)!r}".removesuffix(".0") + self.unit


UNITS = {"ep": "epochs", "samples": "samples", "tok": "tokens"}
"""The units of an `Amount`, and their names."""
UNIT_PATTERN = "(?P<unit>ep|samples?|tok(?:ens?)?)"
_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class DurationReader(Reader):
    """A number of optimizer steps (an int), a fraction of the run (a `Fraction` from 0 to 1) or an `Amount`.

    `500` and `"500"` are steps; `0.05`, `"0.05"` and `"5%"` are fractions; `"1ep"` is one epoch, `"100k samples"` and
    `"1.5B tokens"` are amounts of data. Fractions and amounts stay exact, so that 0.07 of 100 steps is 7 and not 8.
    """

    def __init__(self, above_zero: bool = False) -> None:
        self.above_zero = above_zero
        least = "above 0" if above_zero else "0 or more"
        self.allowed = f"steps (500), a share of the run (5%) or an amount of data (1ep, 9k samples, 5M tok), {least}"

    def __call__(self, name: str, value: object) -> int | Fraction | Amount:
        duration = _as_duration(value)
        size = duration.number if isinstance(duration, Amount) else duration
        most = 1 if isinstance(duration, Fraction) else _LARGEST
        if duration is None or size is None or not 0 <= size <= most or (self.above_zero and size == 0):
            raise ArgumentError(name, self.allowed, value)
        return duration


def percentage_as_fraction(value: object) -> object:
    """`"10%"` as 0.1, and any other value unchanged."""
    is_percentage = isinstance(value, str) and value.strip().endswith("%")
    fraction = _as_duration(value) if is_percentage else None
    return float(fraction) if isinstance(fraction, Fraction) else value


def _as_duration(value: object) -> int | Fraction | Amount | None:
    """The value as a duration of any size; None if it is neither steps nor a fraction nor an amount."""
    if isinstance(value, (Fraction, Amount)):
        return value
    text = value.strip() if isinstance(value, str) else ""
    amount = re.fullmatch(rf"(?P<number>.*?)\s*(?P<prefix>[kMBT]?)\s*{UNIT_PATTERN}", text)
    number = _as_float(amount["number"] if amount else text[:-1] if text.endswith("%") else value)
    if number is None:
        return None
    exact = Fraction(repr(number))  # of the decimal digits, not of the nearest binary number
    if amount:
        unit = next(unit for unit in UNITS if unit[:3] == amount["unit"][:3])
        return Amount(exact * _PREFIXES[amount["prefix"]], unit)
    if text.endswith("%"):
        return exact / 100
    return int(number) if number.is_integer() else exact


class OneOf(Reader):
    """One of a few words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.allowed = f"one of {', '.join(words)}"

    def __call__(self, name: str, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise ArgumentError(name, self.allowed, value, suggest(value, self.words))
        return value


class OfType(Reader):
    """A value of a type; `allowed` says so in words."""

    def __init__(self, kind: type, allowed: str) -> None:
        self.kind, self.allowed = kind, allowed

    def __call__(self, name: str, value: object) -> Any:
        if not isinstance(value, self.kind):
            raise ArgumentError(name, self.allowed, value)
        return value


class ListOf(Reader):
    """A list of one or more values, as a tuple."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.allowed = f"a list of one or more, each {reader.allowed}"

    def __call__(self, name: str, value: object) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise ArgumentError(name, self.allowed, value)
        return tuple(self.reader(name, item) for item in value)


@dataclass(frozen=True)
class StepUnits:
    """What turns epochs, samples and tokens of a run into optimizer steps; None for what is unknown."""

    steps_per_epoch: float | None = None
    samples_per_step: float | None = None
    """The effective batch: on all processes, over all accumulated batches."""
    tokens_per_step: float | None = None
    count_tokens: Callable[[], float] | None = None
    """Returns `tokens_per_step` if a duration needs it. Its ValueError says why it is unknown, with a remedy."""

    def __post_init__(self) -> None:
        for name, value in [*vars(self).items()]:
            if value is not None and name != "count_tokens":
                object.__setattr__(self, name, Number(0, above_low=True)(name, value))

    def __reduce__(self) -> Any:
        """Without `count_tokens`, which needs the data."""
        return StepUnits, (self.steps_per_epoch, self.samples_per_step, self.tokens_per_step)

    def as_steps(self, name: str, value: Any) -> Any:
        """A value in which amounts are optimizer steps, rounded to the nearest one. Any part of one is at least a step.

        Raises:
            DurationUnknown: The value is in a unit whose size is unknown.
        """
        if type(value) is tuple:  # a shape is one as well
            return tuple(self.as_steps(name, item) for item in value)
        if not isinstance(value, Amount):
            return value
        per_step = 1 / Fraction(self._size(name, value)) if value.unit != "ep" else Fraction(self._size(name, value))
        steps = value.number * per_step
        return max(round_half_up(steps), 1) if steps else 0

    def _size(self, name: str, amount: Amount) -> float:
        argument = {"ep": "steps_per_epoch", "samples": "samples_per_step", "tok": "tokens_per_step"}[amount.unit]
        size, what = getattr(self, argument), f"is in {UNITS[amount.unit]} ({amount}), but"
        try:
            if argument == "tokens_per_step" and size is None and self.count_tokens is not None:
                size = self.count_tokens()
        except ValueError as error:
            raise DurationUnknown(name, rule=f"{what} {error}") from None
        if size is None:
            hint = f"give `{argument}` (a Trainer sets it in training), or write steps (500) or a share of the run (5%)"
            rule = f"{what} the number of {argument.replace('_', ' ')} is unknown"
            raise DurationUnknown(name, rule=rule, hint=hint)
        return Number(0, above_low=True)(argument, size)


NO_UNITS = StepUnits()


def as_steps(
    duration: Duration, num_training_steps: int | None, units: StepUnits = NO_UNITS, name: str = "duration"
) -> int:
    """A duration in optimizer steps. Fractions and amounts are rounded to the nearest step, half a step upwards."""
    steps: int | Fraction = units.as_steps(name, DurationReader()(name, duration))
    if isinstance(steps, Fraction):
        return round_half_up(steps * require_length(num_training_steps, name, steps))
    return steps


def require_length(num_training_steps: int | None, name: str, value: object) -> int:
    """The length of the run; an `ArgumentError` if it is None, because the value of an argument depends on it."""
    if num_training_steps is None:
        what = "for the rest of the run" if value is None else _show(value)
        hint = "give `horizon`, the number of steps that the schedule is laid out for"
        raise ArgumentError("num_training_steps", rule=f"is None, but `{name}` {what} depends on it", hint=hint)
    return num_training_steps


def round_half_up(number: Fraction) -> int:
    """The nearest whole number, half upwards."""
    return math.floor(number + Fraction(1, 2))


TEXT = OfType(str, "text")
BOOLEAN = OfType(bool, "true or false")
MAPPING = OfType(Mapping, "a mapping of arguments by name")
_READER_OF_TYPE: dict[object, Reader] = {float: Number(), int: Whole(), str: TEXT, bool: BOOLEAN}


def reader_of(hint: object) -> Reader | None:
    """The reader that an annotation chooses, also inside `... | None`."""
    if hint in _READER_OF_TYPE:
        return _READER_OF_TYPE[hint]
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        found = part if isinstance(part, Reader) else reader_of(part)
        if found:
            return found
    return None


def _show(value: object) -> str:
    """A value as messages show it: fractions of the run and amounts as a user writes them."""
    if isinstance(value, Fraction):
        return repr(f"{float(value * 100):g}%")
    return repr(str(value)) if isinstance(value, Amount) else repr(value)


def _as_float(value: object) -> float | None:
    """The value as a finite float; None if it is not a number. Booleans are not numbers."""
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


Ratio: TypeAlias = Annotated[float, Number(0, 1)]
"""A fraction from 0 to 1, usually of the peak."""
Positive: TypeAlias = Annotated[float, Number(0, above_low=True)]
"""A number above 0."""
Rate: TypeAlias = Annotated[float, Number(0)]
"""A number, 0 or more, for example a learning rate."""
Count: TypeAlias = Annotated[int, Whole(1)]
"""How many of something: 1 or more."""
Duration: TypeAlias = Annotated[int | float | str | Fraction | Amount, DurationReader()]
"""Steps (`500`), a share of the run (`0.05`, `"5%"`), or an amount of data (`"1ep"`, `"9k samples"`, `"5M tok"`)."""
Period: TypeAlias = Annotated[int | float | str | Fraction | Amount, DurationReader(above_zero=True)]
"""A duration above 0."""
Keywords: TypeAlias = Annotated[Mapping[str, Any], MAPPING]
"""Arguments by name."""
