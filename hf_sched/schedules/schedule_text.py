"""A schedule in one text, which is accepted wherever a name is.

cosine_floor
wsd:decay=30%,floor_ratio=0.1
cosine_with_min_lr:{"min_lr": 1e-6}
warmup 5% | hold | decay 20% 1-sqrt
my_schedules.trapezoid
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hf_sched.schedules import registry
from hf_sched.schedules.phases import KINDS
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import NO_UNITS, ArgumentError, DurationUnknown, StepUnits


def read(
    text: object, arguments: Mapping[str, Any] | None = None, *, argument: str = "lr_scheduler_type"
) -> tuple[str, dict[str, Any]]:
    """Split a text into the name of a schedule and its arguments.

    Args:
        text: `NAME`, `NAME:ARGUMENT=VALUE,...`, `NAME:{JSON or YAML}`, or phases; or a member of an enum with such a
            value. A dotted name is the path of a function, which is loaded.
        arguments: Further arguments, such as `lr_scheduler_kwargs`.
        argument: The user's name for `text`.

    Returns:
        The name, which may be unknown, and all arguments.

    Raises:
        ArgumentError: It is not text or does not parse, an argument is given twice, or the function cannot be loaded.
    """
    text = getattr(text, "value", text)
    if not isinstance(text, str):
        allowed = "text: a name, also with arguments (wsd:decay=20%,floor_ratio=0.1), or phases (hold | decay 20%)"
        raise ArgumentError(argument, allowed, text)
    name, colon, pairs = map(str.strip, text.partition(":"))
    if "|" in name or re.split(r"[\s;]", name)[0] in KINDS:
        name, written = "phases", {"phases": text}
    else:
        written = _read_arguments(pairs, text, argument) if colon else {}
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        registry.load(name)
    given = dict(arguments or {})
    for key, value in written.items():
        if given.get(key) is not None:
            raise ArgumentError(
                key, received=given[key], rule=f"is given twice: {text!r} has `{key}` {value!r} already"
            )
    return name, given | written


def check(name: str, text: object) -> str:
    """Check the text of a schedule of hf_sched and its arguments, and return the text; `name` is the argument to blame.

    Raises:
        ArgumentError: There is no such schedule, or its arguments are wrong.
    """
    with blaming(name):
        schedule, arguments = read(text, argument="schedule")
        registry.entry(schedule).check(arguments)
    return str(text)


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Let errors about a schedule name the argument that it is the value of."""
    try:
        yield
    except DurationUnknown:  # a fact about the run
        raise
    except ArgumentError as error:
        raise ArgumentError(name, rule=f"has an unusable schedule: {error}") from None


def _read_arguments(pairs: str, text: str, argument: str) -> dict[str, Any]:
    import yaml

    if not pairs.startswith("{"):
        pairs = "{" + re.sub(r"(^|[,{])\s*(\w+)\s*=", r"\1 \2: ", pairs) + "}"
    try:
        node, arguments = yaml.compose(pairs, Loader=yaml.SafeLoader), yaml.safe_load(pairs)
    except yaml.YAMLError:
        node = arguments = None
    if not isinstance(node, yaml.MappingNode) or any(value is None for value in arguments.values()):
        allowed = "a name with arguments (wsd:decay=20%,floor_ratio=0.1) or with a mapping in JSON"
        hint = "the part after the colon does not parse; lists need brackets (milestones=[30, 60])"
        raise ArgumentError(argument, allowed, text, hint)
    if len(arguments) < len(keys := [key.value for key, _ in node.value]):
        raise ArgumentError(max(keys, key=keys.count), rule=f"is given twice in {text!r}")
    return {key: _as_number(value) for key, value in arguments.items()}


def _as_number(value: Any) -> Any:
    """A number that YAML reads as text, such as `1e-6`, as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def build(
    name: str,
    *,
    num_training_steps: int | None,
    num_warmup_steps: int = 0,
    steps_per_epoch: float | None = None,
    samples_per_step: float | None = None,
    tokens_per_step: float | None = None,
    **kwargs: Any,
) -> Schedule:
    """Build the schedule with the given name for a run.

    Args:
        name: One of `available()`, also with arguments (`"wsd:decay=30%"`), or phases as text.
        num_training_steps: Optimizer steps of the run, 1 or more. None if they are unknown: then the schedule needs a
            `horizon`, or ends with `hold` and has all durations in steps.
        num_warmup_steps: Optimizer steps of warmup, a Trainer's `warmup_steps`.
        steps_per_epoch: Optimizer steps of an epoch, if an argument is in epochs (`"1ep"`).
        samples_per_step: Samples of an optimizer step on all processes, if an argument is in samples.
        tokens_per_step: Tokens of an optimizer step on all processes, if an argument is in tokens.
        **kwargs: The schedule's own arguments, `floor_ratio` (a fraction of the peak) or `min_lr` (a learning rate),
            and `horizon` (the steps to lay the schedule out for, or `"1.5x"` the steps of the run).

    Raises:
        ArgumentError: An argument is unknown, missing or wrong, or the phases do not fit into the run.

    Examples:
        >>> schedule = hf_sched.build("cosine_floor", num_training_steps=1000, num_warmup_steps=50, floor_ratio=0.1)
        >>> schedule.lr(999, peak=1e-3)
        0.0001
    """
    name, arguments = read(name, kwargs, argument="name")
    units = StepUnits(steps_per_epoch, samples_per_step, tokens_per_step)
    return registry.entry(name).build(num_training_steps, num_warmup_steps, arguments, units)


def build_text(
    text: str, num_training_steps: int | None, num_warmup_steps: int = 0, units: StepUnits = NO_UNITS
) -> Schedule:
    """Build a schedule from its text alone, for example that of a parameter group."""
    name, arguments = read(text, argument="schedule")
    return registry.entry(name).build(num_training_steps, num_warmup_steps, arguments, units)
