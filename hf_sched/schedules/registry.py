"""The registry: names, the functions behind them, and the way from a name and its arguments to a `Schedule`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from hf_sched.schedules import phases
from hf_sched.schedules.phases import PEAK, Phase, ScheduleSpec
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import Epochs, Number, Reader, Whole, did_you_mean, epochs_as_steps, reader_of

BuildPhases = Callable[..., Iterable[Phase] | ScheduleSpec]
F = TypeVar("F", bound=BuildPhases)

# The names of transformers' own schedules. They are listed here so that a wrong name can be answered without importing
# transformers; a test compares them with `SchedulerType`.
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
_OF_THE_RUN = ("num_training_steps", "num_warmup_steps", "steps_per_epoch")
_FLOORS: dict[str, Reader] = {"floor_ratio": Number(0, 1), "min_lr": Number(0)}


@dataclass(frozen=True)
class Entry:
    """A registered schedule."""

    name: str
    build_phases: BuildPhases
    floor_ratio: float | None
    """The floor where the user gives none, as a share of the peak; None: it has no floor."""

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The function's own arguments by name, without what `build` fills in."""
        parameters = inspect.signature(self.build_phases).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in _OF_THE_RUN}

    @property
    def arguments(self) -> list[str]:
        """The names that `lr_scheduler_kwargs` may have."""
        return [*self.parameters, *(() if self.has_own_floor or self.floor_ratio is None else _FLOORS)]

    @property
    def has_own_floor(self) -> bool:
        """Whether it takes the floor's arguments, or one of them, itself."""
        return any(name in self.parameters for name in _FLOORS)

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
        return {name: self.reader(name)(name, value) for name, value in given.items()}

    def spec(
        self,
        num_training_steps: int | None,
        num_warmup_steps: int,
        arguments: dict[str, Any],
        steps_per_epoch: float | None = None,
    ) -> ScheduleSpec:
        """The phases of a run, the Trainer's warmup in front, and their floor; arguments and errors as in `build`."""
        total = Whole(1)("num_training_steps", num_training_steps)
        warmup_steps = Whole()("num_warmup_steps", num_warmup_steps)
        if warmup_steps >= total:
            raise ValueError(
                f"`num_warmup_steps` must be less than `num_training_steps` ({total}), received {warmup_steps} "
                "(from `warmup_steps`, in a Trainer): shorten the warmup or lengthen the run"
            )
        if steps_per_epoch is not None:
            steps_per_epoch = Number(0, above_low=True)("steps_per_epoch", steps_per_epoch)
        given = {
            name: epochs_as_steps(name, value, steps_per_epoch) if isinstance(value, Epochs) else value
            for name, value in self.read(arguments).items()
        }
        floor_asked = [name for name in _FLOORS if arguments.get(name) is not None]
        if warmup_steps and self.has_own_warmup:
            if arguments.get("warmup") is not None:
                raise _warmup_twice(f"`warmup` ({arguments['warmup']!r})", warmup_steps)
            given["warmup"] = warmup_steps
        # A function's own default for one floor gives way to the other that was requested.
        floors = {name: given[name] for name in _FLOORS if name in given and name in (floor_asked or _FLOORS)}
        wanted = inspect.signature(self.build_phases).parameters
        of_the_run = dict(zip(_OF_THE_RUN, (total, warmup_steps, steps_per_epoch), strict=True))
        passed = {name: value for name, value in (given | of_the_run).items() if name in wanted}
        spec = self._read_returned(self.build_phases(**passed))
        laid = list(spec.phases)
        if warmup_steps and not self.has_own_warmup:
            if laid and laid[0].kind == "warmup":
                raise _warmup_twice(f"{self.name}'s own (its first phase)", warmup_steps)
            # A schedule that starts elsewhere than at the peak is warmed up to where it starts.
            laid.insert(0, phases.warmup(warmup_steps, to=(laid[0].start if laid else None) or PEAK))
        if spec.floor_ratio is not None or spec.min_lr is not None:
            if floors and not self.has_own_floor:
                raise ValueError(f"the floor is given twice: {self.name} sets its own, leave out {', '.join(floors)}")
            return ScheduleSpec(tuple(laid), spec.floor_ratio, spec.min_lr)
        if floors and not has_floor(laid) and not self.has_own_floor:
            raise no_floor(self.name, next(iter(floors)))
        return ScheduleSpec(tuple(laid), **(floors or {"floor_ratio": self.floor_ratio}))

    def build(
        self,
        num_training_steps: int | None,
        num_warmup_steps: int,
        arguments: dict[str, Any],
        steps_per_epoch: float | None = None,
    ) -> Schedule:
        """See `hf_sched.build`."""
        spec = self.spec(num_training_steps, num_warmup_steps, arguments, steps_per_epoch)
        return Schedule.from_phases(
            spec.phases,
            num_training_steps=Whole(1)("num_training_steps", num_training_steps),
            floor_ratio=spec.floor_ratio or 0.0,
            min_lr=spec.min_lr,
            steps_per_epoch=steps_per_epoch,
        )

    def _read_returned(self, returned: object) -> ScheduleSpec:
        if isinstance(returned, ScheduleSpec):
            return returned
        laid = tuple(returned) if isinstance(returned, Iterable) else (returned,)
        if not isinstance(returned, Iterable) or not all(isinstance(phase, Phase) for phase in laid):
            raise TypeError(
                f"the function of {self.name!r} must return phases (hf_sched.warmup, hold, ...) in a list, "
                f"received {returned!r}"
            )
        return ScheduleSpec(laid)

    def reader(self, name: str) -> Callable[[str, Any], Any]:
        """What reads an argument: called with its name and a value, it gives the value in its one form or refuses."""
        return reader_of(self._hints.get(name)) or _FLOORS.get(name) or (lambda _, value: value)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.build_phases, include_extras=True)
        except (NameError, AttributeError):  # imported for type checkers only: the function checks by itself
            return {}


def has_floor(laid: Iterable[Phase]) -> bool:
    """Whether any of the phases gets to the floor."""
    return any(level and level.floor for phase in laid for level in (phase.start, phase.end))


def no_floor(what: str, argument: str) -> ValueError:
    """The error for a floor that nothing gets to."""
    return ValueError(f"{what} has no floor, so `{argument}` would change nothing: leave it out")


def _warmup_twice(own: str, warmup_steps: int) -> ValueError:
    return ValueError(
        f"the warmup is given twice: give either {own} or the Trainer's `warmup_steps` (num_warmup_steps = "
        f"{warmup_steps})"
    )


_entries: dict[str, Entry] = {}
_listeners: list[Callable[[str], None]] = []


def register(name: str, *, floor_ratio: float | None = 0.0) -> Callable[[F], F]:
    """Make a function a schedule: a name for `build`, and for `lr_scheduler_type` wherever transformers is used.

    The function returns phases; its keyword arguments are what `lr_scheduler_kwargs` may hold. It is given warmup and
    floor for nothing: the Trainer's warmup is put in front of its phases (unless it has an argument `warmup` of its
    own), and every schedule takes `floor_ratio` or `min_lr` (unless it has an argument of one of these names itself).
    If it has arguments called `num_training_steps`, `num_warmup_steps` or `steps_per_epoch`, it gets those of the run.

        @hf_sched.register("trapezoid")
        def trapezoid(*, cooldown: hf_sched.Duration = "20%"):
            \"\"\"Hold the peak, then a straight line to the floor.\"\"\"
            return [hf_sched.hold(), hf_sched.decay(cooldown)]

    Args:
        name: Lower-case letters, digits and underscores. Registering a name again replaces it only from the same place,
            as a notebook cell
            that is run twice does.
        floor_ratio: The floor where the user gives none, as a share of the peak; None if the schedule has no floor.

    Raises:
        ValueError: The name is taken, or is no such name, or the function takes arguments it cannot be given.
    """
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise ValueError(f"`name` must be lower-case letters, digits and underscores, received {name!r}")
    if floor_ratio is not None:
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


def build(
    name: str,
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    steps_per_epoch: float | None = None,
    **kwargs: Any,
) -> Schedule:
    """The schedule of a name, for a run.

    Args:
        name: One of `available()`.
        num_training_steps: Optimizer steps of the run, 1 or more.
        num_warmup_steps: Optimizer steps of warmup; with `lr_scheduler_kwargs`, what `TrainingArguments.warmup_steps`
            comes to.
        steps_per_epoch: Optimizer steps of an epoch, where an argument is in epochs (`"1ep"`).
        **kwargs: The schedule's own arguments, `floor_ratio` (a share of the peak) or `min_lr` (a learning rate) among
            them.

    Raises:
        ValueError: Anything in this does not fit; the message names the argument, shows the value and says what is
            allowed.
    """
    return entry(name).build(num_training_steps, num_warmup_steps, kwargs, steps_per_epoch)


def _check_parameters(name: str, function: BuildPhases) -> None:
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise ValueError(f"the function of {name!r} must name its arguments, received `{parameter}`")


def _place(function: BuildPhases) -> tuple[str, str]:
    return function.__module__, function.__qualname__
