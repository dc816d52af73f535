"""The registry: names, the functions behind them, and the way from a name and its arguments to a `Schedule`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from hf_sched import phases
from hf_sched.arguments import Number, Reader, Whole, did_you_mean
from hf_sched.phases import Phase
from hf_sched.schedule import Schedule

BuildPhases = Callable[..., Iterable[Phase]]
F = TypeVar("F", bound=BuildPhases)

# What transformers knows by itself, so that a name can be told apart, and a wrong one answered, without importing it.
BUILTIN_NAMES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
)

# Filled in by `build` where a function asks for them by name; no user writes them.
_OF_THE_RUN = ("num_training_steps", "num_warmup_steps")
_FLOORS = ("floor_ratio", "min_lr")
_READERS: dict[object, Reader] = {float: Number(), int: Whole()}


@dataclass(frozen=True)
class Entry:
    """A registered schedule."""

    name: str
    build_phases: BuildPhases
    floor_ratio: float
    """The floor where the user gives none, as a share of the peak."""

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The function's own arguments by name, without what `build` fills in."""
        parameters = inspect.signature(self.build_phases).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in _OF_THE_RUN}

    @property
    def arguments(self) -> list[str]:
        """The names that `lr_scheduler_kwargs` may have."""
        return [*self.parameters, *_FLOORS]

    @property
    def has_own_warmup(self) -> bool:
        """Whether it takes an argument `warmup`, used where the Trainer gives no warmup."""
        return "warmup" in self.parameters

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """All arguments, each checked and in its one form (a floor only if given); None stands for the default.

        Raises:
            ValueError: One is unknown, missing or has a wrong value, or both floors are given.
        """
        for name in arguments:
            if name not in self.arguments:
                raise ValueError(
                    f"{self.name} has no argument `{name}` (received {arguments[name]!r})"
                    f"{did_you_mean(name, self.arguments)} It takes {', '.join(self.arguments)}."
                )
        given = {name: value for name, value in arguments.items() if value is not None}
        if all(name in given for name in _FLOORS):
            raise ValueError(
                "the floor is given twice: give either `floor_ratio` or `min_lr`, "
                f"received {given['floor_ratio']!r} and {given['min_lr']!r}"
            )
        for name, parameter in self.parameters.items():
            if name not in given and parameter.default is inspect.Parameter.empty:
                raise ValueError(f"{self.name} needs the argument `{name}`")
            if name not in given and parameter.default is not None:
                given[name] = parameter.default
        return {name: self._reader(name)(name, value) for name, value in given.items()}

    def build(self, num_training_steps: int | None, num_warmup_steps: int, kwargs: dict[str, Any]) -> Schedule:
        """See `hf_sched.build`."""
        total = Whole(1)("num_training_steps", num_training_steps)
        warmup_steps = Whole()("num_warmup_steps", num_warmup_steps)
        if warmup_steps >= total:
            raise ValueError(
                f"`num_warmup_steps` must be less than `num_training_steps` ({total}), received {warmup_steps} "
                "(from `warmup_steps`, in a Trainer): shorten the warmup or lengthen the run"
            )
        given = self.read(kwargs)
        floors = {name: given.pop(name) for name in _FLOORS if name in given}
        if warmup_steps and self.has_own_warmup:
            if kwargs.get("warmup") is not None:
                raise ValueError(
                    f"the warmup is given twice: give either `warmup` ({kwargs['warmup']!r}) or the Trainer's "
                    f"`warmup_steps` (num_warmup_steps = {warmup_steps})"
                )
            given["warmup"] = warmup_steps
        wanted = inspect.signature(self.build_phases).parameters
        of_the_run = {"num_training_steps": total, "num_warmup_steps": warmup_steps}
        returned = self.build_phases(**given, **{name: n for name, n in of_the_run.items() if name in wanted})
        laid = list(returned) if isinstance(returned, Iterable) else [returned]
        if not isinstance(returned, Iterable) or not all(isinstance(phase, Phase) for phase in laid):
            raise TypeError(
                f"the function of {self.name!r} must return phases (hf_sched.warmup, hold, ...) in a list, "
                f"received {returned!r}"
            )
        if warmup_steps and not self.has_own_warmup:
            laid.insert(0, phases.warmup(warmup_steps))
        if floors and not any(level and level.floor for phase in laid for level in (phase.start, phase.end)):
            raise ValueError(f"{self.name} has no floor, so `{next(iter(floors))}` would change nothing: leave it out")
        return Schedule.lay(
            laid,
            num_training_steps=total,
            floor_ratio=0.0 if "min_lr" in floors else floors.get("floor_ratio", self.floor_ratio),
            min_lr=floors.get("min_lr"),
        )

    def _reader(self, name: str) -> Callable[[str, Any], Any]:
        if name in _FLOORS:
            return Number(0, 1) if name == "floor_ratio" else Number(0)
        try:
            hints = typing.get_type_hints(self.build_phases, include_extras=True)
        except (NameError, AttributeError):  # imported for type checkers only: the function checks by itself
            hints = {}
        return _find_reader(hints.get(name)) or (lambda _, value: value)


_entries: dict[str, Entry] = {}
_listeners: list[Callable[[str], None]] = []


def register(name: str, *, floor_ratio: float = 0.0) -> Callable[[F], F]:
    """Make a function a schedule: a name for `build`, and for `lr_scheduler_type` wherever transformers is used.

    The function returns phases; its keyword arguments are what `lr_scheduler_kwargs` may hold. It is given warmup and
    floor for
    nothing: the Trainer's warmup is put in front of its phases (unless it has an argument `warmup` of its own), and
        every schedule takes `floor_ratio` or `min_lr`. If it has arguments called `num_training_steps` or
        `num_warmup_steps`, it gets those of the run.

        @hf_sched.register("trapezoid")
        def trapezoid(*, cooldown: hf_sched.Duration = "20%"):
            \"\"\"Hold the peak, then a straight line to the floor.\"\"\"
            return [hf_sched.hold(), hf_sched.decay(cooldown)]

    Args:
        name: Lower-case letters, digits and underscores. Registering a name again replaces it only from the same place,
            as a notebook cell
            that is run twice does.
        floor_ratio: The floor where the user gives none, as a share of the peak.

    Raises:
        ValueError: The name is taken, or is no such name, or the function takes arguments it cannot be given.
    """
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise ValueError(f"`name` must be lower-case letters, digits and underscores, received {name!r}")
    floor_ratio = Number(0, 1)("floor_ratio", floor_ratio)

    def decorate(function: F) -> F:
        taken = _entries.get(name)
        if name in BUILTIN_NAMES or (taken and _place(taken.build_phases) != _place(function)):
            raise ValueError(
                f"`name` {name!r} is taken by {'hf_sched' if taken else 'transformers'}: choose another one"
            )
        _check_parameters(name, function)
        _entries[name] = Entry(name, function, floor_ratio)
        for listener in _listeners:
            listener(name)
        return function

    return decorate


def available() -> list[str]:
    """The names of all schedules of hf_sched and of the user, in alphabetical order."""
    return sorted(_entries)


def entry(name: str) -> Entry:
    """What is registered under a name.

    Raises:
        ValueError: Nothing is; the message lists what there is and suggests the nearest.
    """
    if not isinstance(name, str) or name not in _entries:
        raise ValueError(unknown_name(name))
    return _entries[name]


def unknown_name(name: object, builtin: Iterable[str] = BUILTIN_NAMES) -> str:
    """The message for a name that is neither ours nor transformers' own."""
    theirs = [other for other in builtin if other not in _entries]
    return (
        f"{name!r} is not the name of a schedule{did_you_mean(name, [*_entries, *theirs])} "
        f"hf_sched has {', '.join(available())}; transformers has {', '.join(theirs)}."
    )


def on_register(listener: Callable[[str], None]) -> None:
    """Call `listener` with every name registered so far and from now on."""
    for name in _entries:
        listener(name)
    _listeners.append(listener)


def build(name: str, *, num_training_steps: int, num_warmup_steps: int = 0, **kwargs: Any) -> Schedule:
    """The schedule of a name, for a run.

    Args:
        name: One of `available()`.
        num_training_steps: Optimizer steps of the run, 1 or more.
        num_warmup_steps: Optimizer steps of warmup; with `lr_scheduler_kwargs`, what `TrainingArguments.warmup_steps`
            comes to.
        **kwargs: The schedule's own arguments, `floor_ratio` (a share of the peak) or `min_lr` (a learning rate) among
            them.

    Raises:
        ValueError: Anything in this does not fit; the message names the argument, shows the value and says what is
            allowed.
    """
    return entry(name).build(num_training_steps, num_warmup_steps, kwargs)


def _find_reader(hint: object) -> Reader | None:
    """The reader that an annotation names, also within `... | None`."""
    if hint in _READERS:
        return _READERS[hint]
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        found = part if isinstance(part, Reader) else _find_reader(part)
        if found:
            return found
    return None


def _check_parameters(name: str, function: BuildPhases) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise ValueError(f"the function of {name!r} must name its arguments, received `{parameter}`")
        if parameter.name in _FLOORS:
            raise ValueError(
                f"the function of {name!r} must not take `{parameter.name}`: every schedule has it; "
                "set its default by `register(..., floor_ratio=...)`"
            )


def _place(function: BuildPhases) -> tuple[str, str]:
    return function.__module__, function.__qualname__
