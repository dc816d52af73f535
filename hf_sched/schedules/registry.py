"""The registry: the names of schedules, their functions, and the way from a name and its arguments to a `Schedule`."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hf_sched.schedules import phases
from hf_sched.schedules.horizon import Horizon, HorizonReader, horizon_steps
from hf_sched.schedules.phases import PEAK, Phase, ScheduleSpec
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.shapes import ShapeReader
from hf_sched.schedules.validation import (
    NO_UNITS,
    ArgumentError,
    Number,
    Reader,
    StepUnits,
    Whole,
    reader_of,
    require_length,
    suggest,
    unknown_argument,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BuildPhases = Callable[..., Iterable[Phase] | ScheduleSpec]
F = TypeVar("F", bound=BuildPhases)

# The names of transformers' own schedules, so that a wrong name can be reported without importing transformers. A test
# compares them with `SchedulerType`.
BUILTIN_NAMES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay", "greedy"),
)

# Arguments that `build` passes to a function that has them. They are not part of `lr_scheduler_kwargs`.
OF_THE_RUN = ("num_training_steps", "num_warmup_steps", "steps_per_epoch", "units")
# The group of the entry points by which a package publishes schedules.
ENTRY_POINTS = "hf_sched.schedules"
FLOORS = {"floor_ratio": Number(0, 1, unit="a share of the peak"), "min_lr": Number(0, unit="a learning rate")}
COMMON: dict[str, Reader] = {**FLOORS, "horizon": HorizonReader()}
"""Arguments of every schedule."""


@dataclass(frozen=True)
class Entry:
    """A registered schedule."""

    name: str
    build_phases: BuildPhases
    floor_ratio: float | None
    """The default floor; None if the schedule has no floor."""

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The function's own arguments by name, without those of the run."""
        parameters = inspect.signature(self.build_phases).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in OF_THE_RUN}

    @property
    def arguments(self) -> list[str]:
        """The names that `lr_scheduler_kwargs` may have."""
        floors = () if self.has_own_floor or self.floor_ratio is None else FLOORS
        return [*dict.fromkeys((*self.parameters, *floors, "horizon"))]

    @property
    def has_own_floor(self) -> bool:
        """Whether the function itself takes `floor_ratio` or `min_lr`."""
        return any(name in self.parameters for name in FLOORS)

    def reader(self, name: str) -> Callable[[str, Any], Any]:
        """The reader of an argument. Without an annotation, a value passes as it is."""
        return reader_of(self._hints.get(name)) or COMMON.get(name) or (lambda _, value: value)

    def read(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """All arguments in their canonical form, defaults included (a floor only if it is given). None means the
        default.

        Raises:
            ArgumentError: An argument is unknown, missing or wrong, or both floors are given.
        """
        self._check_names(arguments)
        given = {name: value for name, value in arguments.items() if value is not None}
        phases.check_one_floor(given.get("floor_ratio"), given.get("min_lr"))
        for name, parameter in self.parameters.items():
            if name not in given and parameter.default is inspect.Parameter.empty:
                raise ArgumentError(name, rule=f"is required by {self.name}")
            if name not in given and parameter.default is not None:
                given[name] = parameter.default
        return {name: self.reader(name)(name, value) for name, value in given.items()}

    def check(self, arguments: dict[str, Any]) -> None:
        """Raise an `ArgumentError` if an argument is unknown or wrong. Required ones may be missing."""
        self._check_names(arguments)
        for name, value in arguments.items():
            self.reader(name)(name, value)

    def build(
        self,
        num_training_steps: int | None,
        num_warmup_steps: int,
        arguments: dict[str, Any],
        units: StepUnits = NO_UNITS,
    ) -> Schedule:
        """See `hf_sched.build`."""
        spec = self.spec(num_training_steps, num_warmup_steps, arguments, units)
        try:
            return Schedule.from_spec(spec, num_training_steps, units)
        except ArgumentError as error:
            if error.name in (*self.arguments, *OF_THE_RUN):
                raise
            # The phases do not fit together. Name an argument that they come from, or else the length of the run.
            others = (Number,) if error.name == "shape" else (Number, ShapeReader)
            given = [name for name in self.parameters if arguments.get(name) is not None]
            culprits = [name for name in given if not isinstance(self.reader(name), others)]
            name = culprits[-1] if culprits else "num_training_steps"
            raise type(error)(name, rule=f"cannot be used here: {error}") from None

    def spec(
        self,
        num_training_steps: int | None,
        num_warmup_steps: int,
        arguments: dict[str, Any],
        units: StepUnits = NO_UNITS,
    ) -> ScheduleSpec:
        """The phases of a run, their floor and their horizon in steps, with the Trainer's warmup first.

        Arguments and errors as in `build`.
        """
        length = self.length(num_training_steps, arguments, units)
        warmup_steps = Whole()("num_warmup_steps", num_warmup_steps)
        given = self.read(arguments)
        horizon = None if self._horizon(given) is None else length
        if length is not None and warmup_steps >= length:
            allowed = f"less than `{'horizon' if horizon else 'num_training_steps'}` ({length})"
            hint = "shorten the warmup (a Trainer's `warmup_steps`) or lengthen the run"
            raise ArgumentError("num_warmup_steps", allowed, warmup_steps, hint)
        values = {name: units.as_steps(name, value) for name, value in given.items() if name != "horizon"}
        if warmup_steps and "warmup" in self.parameters:
            values["warmup"] = warmup_steps
        run = dict(zip(OF_THE_RUN, (length, warmup_steps, units.steps_per_epoch, units), strict=True))
        spec = self._call(values | run)
        if warmup_steps:
            spec = self._with_trainers_warmup(spec, warmup_steps, arguments)
        spec = replace(spec, horizon=horizon)
        # A given floor replaces the function's default for the other one.
        floors = [name for name in FLOORS if arguments.get(name) is not None] or list(FLOORS)
        floor = {name: values[name] for name in floors if name in values}
        has_floor = (spec.floor_ratio, spec.min_lr) != (None, None)
        if has_floor and floor and not self.has_own_floor:
            rule = f"is a second floor: {self.name} has one already"
            raise ArgumentError(floors[0], received=floor[floors[0]], hint="give one of them", rule=rule)
        if has_floor:
            return spec
        ratio = floor.get("floor_ratio", None if floor else self.floor_ratio)
        return ScheduleSpec(spec.phases, ratio, floor.get("min_lr"), horizon)

    def length(
        self, num_training_steps: int | None, arguments: dict[str, Any], units: StepUnits = NO_UNITS
    ) -> int | None:
        """The steps that the schedule is laid out for: its horizon, by default the steps of the run."""
        total = None if num_training_steps is None else Whole(1)("num_training_steps", num_training_steps)
        horizon = self._horizon(self.read(arguments))
        return total if horizon is None else horizon_steps(horizon, total, units)

    def _horizon(self, values: dict[str, Any]) -> Horizon | None:
        """The horizon among the arguments, or in the text of phases."""
        specs = [value for value in values.values() if isinstance(value, ScheduleSpec)]
        given = [*(spec.horizon for spec in specs), values.get("horizon")]
        found = [horizon for horizon in given if horizon is not None]
        if len(found) > 1:
            raise ArgumentError("horizon", rule="is given twice: the phases have one already", received=found[-1])
        return found[0] if found else None

    def _call(self, values: dict[str, Any]) -> ScheduleSpec:
        """Call the function with the arguments that it takes."""
        wanted = inspect.signature(self.build_phases).parameters
        if "num_training_steps" in wanted and type(None) not in typing.get_args(self._hints.get("num_training_steps")):
            require_length(values["num_training_steps"], "lr_scheduler_type", self.name)
        spec = self.build_phases(**{name: value for name, value in values.items() if name in wanted})
        if not isinstance(spec, ScheduleSpec):
            spec = ScheduleSpec(tuple(spec) if isinstance(spec, Iterable) else (spec,))
        if not all(isinstance(phase, Phase) for phase in spec.phases):
            allowed = "must return phases (hf_sched.warmup, hold, ...) in a list"
            raise TypeError(f"the function of {self.name!r} {allowed}, received {spec.phases}")
        return spec

    def _with_trainers_warmup(self, spec: ScheduleSpec, warmup_steps: int, arguments: dict[str, Any]) -> ScheduleSpec:
        first = spec.phases[0] if spec.phases else None
        is_first = first is not None and first.kind == "warmup"
        if arguments.get("warmup") is not None or ("warmup" not in self.parameters and is_first):
            name = next((name for name in ("warmup", "phases") if name in arguments), "lr_scheduler_type")
            rule = f"sets a second warmup beside the Trainer's `warmup_steps` {warmup_steps}"
            raise ArgumentError(name, received=arguments.get(name, self.name), hint="give one of them", rule=rule)
        if "warmup" in self.parameters:
            return spec
        # The warmup ends where the schedule starts, which need not be the peak.
        warmup = phases.warmup(warmup_steps, to=(first.start if first else None) or PEAK)
        return replace(spec, phases=(warmup, *spec.phases))

    def _check_names(self, arguments: dict[str, Any]) -> None:
        for name, value in arguments.items():
            if name not in self.arguments:
                raise unknown_argument(name, value, self.arguments, self.name)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.build_phases, include_extras=True)
        except (NameError, AttributeError):  # imported for type checkers only: the function checks its arguments itself
            return {}


_entries: dict[str, Entry] = {}
_listeners: list[Callable[[str], None]] = []


def register(name: str, *, floor_ratio: float | None = 0.0) -> Callable[[F], F]:
    """Register a function as a schedule, for `build` and as a value of `lr_scheduler_type`.

    The function returns phases. Its keyword arguments are the keys that `lr_scheduler_kwargs` may have. Warmup and
    floor come for free: the Trainer's warmup is prepended to the phases (unless the function has an argument `warmup`),
    and every schedule takes `floor_ratio` or `min_lr` (unless the function has an argument of that name) and `horizon`.
    Arguments called `num_training_steps` (with a `horizon`: that one), `num_warmup_steps` and `steps_per_epoch` receive
    those of the run, and `units` what turns durations such as `"1ep"` into steps. A function that also works without a
    known length annotates `num_training_steps: int | None`.

    Args:
        name: Lower-case letters, digits and underscores. A name may be registered again only from the same place, as a
            notebook cell does that runs twice.
        floor_ratio: The default floor as a fraction of the peak; None if the schedule has no floor.

    Raises:
        ArgumentError: The name is taken or not valid.

    Examples:
        >>> @hf_sched.register("trapezoid")
        ... def trapezoid(*, cooldown: hf_sched.Duration = "20%"):
        ...     \"\"\"Hold the peak, then decay linearly to the floor.\"\"\"
        ...     return [hf_sched.hold(), hf_sched.decay(cooldown)]
        >>> hf_sched.build("trapezoid", num_training_steps=100, num_warmup_steps=10)
        warmup 10 | hold 70 | decay 20
    """
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise ArgumentError("name", "lower-case letters, digits and underscores", name)

    def decorate(function: F) -> F:
        taken = _entries.get(name)
        if name in BUILTIN_NAMES or (taken and _place(taken.build_phases) != _place(function)):
            owner = "another function" if taken else "transformers"
            raise ArgumentError("name", received=name, hint="choose another one", rule=f"is taken by {owner}")
        _add(Entry(name, function, floor_ratio))
        return function

    return decorate


def _add(entry: Entry) -> None:
    _entries[entry.name] = entry
    for listener in _listeners:
        listener(entry.name)


def available() -> list[str]:
    """The names of all schedules: those of hf_sched, registered ones, and those that installed packages publish."""
    _load_published()
    return sorted(_entries)


def names() -> list[str]:
    """Like `available`, but imports no package, so that a name may turn out to be unusable."""
    return sorted({*_entries, *_published()} - {*BUILTIN_NAMES})


def entry(name: str) -> Entry:
    """The schedule that is registered under a name; an unknown one is an `ArgumentError` that lists all."""
    if name not in available():
        if name in BUILTIN_NAMES:
            hint = "transformers makes this one: use `hf_sched.get_scheduler`"
            raise ArgumentError("name", "the name of a schedule of hf_sched", name, hint)
        raise unknown_schedule(name)
    return _entries[name]


def length_of(
    name: str, arguments: Mapping[str, Any], num_training_steps: int | None, units: StepUnits = NO_UNITS
) -> int | None:
    """The steps that a schedule is laid out for: with a `horizon` others than those of the run.

    transformers' own schedules have no horizon.
    """
    if name not in available():
        return num_training_steps
    return entry(name).length(num_training_steps, dict(arguments), units)


def load(path: str) -> None:
    """Register a function under its path (`my_schedules.trapezoid`), also from a file in the working directory.

    Raises:
        ArgumentError: There is no such module or function.
    """
    if path in _entries:
        return
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module, _, attribute = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
        _add(Entry(path, function, _floor_of(function)))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        allowed = "the name of a schedule or the path of a function (my_schedules.trapezoid)"
        raise ArgumentError("lr_scheduler_type", allowed, path, str(error)) from None


def _floor_of(function: Any) -> float | None:
    """The default floor of a loaded function, which may be registered under another name already."""
    if not callable(function):
        raise TypeError(f"{function!r} is not a function that returns phases")
    return next((entry.floor_ratio for entry in _entries.values() if entry.build_phases is function), 0.0)


@cache
def _published() -> dict[str, EntryPoint]:
    """The entry points of installed packages by name. `_load_published` empties it."""
    files = (file for folder in sys.path for file in Path(folder).glob("*-info/entry_points.txt"))
    if not any(ENTRY_POINTS in file.read_text(encoding="utf-8") for file in files):
        return {}
    from importlib.metadata import entry_points  # takes a tenth of the time of `hf-sched list`

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _load_published() -> None:
    while _published():
        name, point = _published().popitem()
        try:
            function = point.load()
            register(name, floor_ratio=_floor_of(function))(function)
        except Exception as error:  # of any kind, from another package
            import logging  # adds a tenth to the time of `import hf_sched`

            package = point.dist.name if point.dist else "a package"
            logging.getLogger(__name__).warning(
                "hf_sched: the schedule %r of %s (%s) cannot be used: %s", name, package, point.value, error
            )


def unknown_schedule(name: str, builtin: Iterable[str] = BUILTIN_NAMES, library: str = "transformers") -> ArgumentError:
    """The error for a name that is neither registered nor one of the library's own (`builtin`)."""
    theirs = [other for other in builtin if other not in _entries]
    known = f"hf_sched has {', '.join(available())}; {library} has {', '.join(theirs)}"
    word = re.split(r"[^\w.-]", name, maxsplit=1)[0]
    hint = suggest(word, [*_entries, *theirs], known)
    syntax = "name your own function by its path, my_schedules.trapezoid"
    if word != name:
        syntax = "write arguments after a colon, wsd:decay=20%,floor_ratio=0.1"
    return ArgumentError("lr_scheduler_type", "the name of a schedule", name, f"{hint}; {syntax}")


def on_register(listener: Callable[[str], None]) -> None:
    """Call `listener` with every name registered so far and every name registered from now on."""
    for name in _entries:
        listener(name)
    _listeners.append(listener)


def _place(function: BuildPhases) -> tuple[str, str]:
    return function.__module__, function.__qualname__
