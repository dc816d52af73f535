"""A configuration before it runs: every mistake at once, each with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from hf_sched.check.finding import Finding
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import Whole

__all__ = ["CheckReport", "Finding", "check"]


@dataclass(frozen=True)
class CheckReport:
    """What a check found."""

    source: str
    kind: str
    """The kind of trainer it was checked for, one of `hf_sched.plan.training_config.KINDS`."""
    findings: tuple[Finding, ...]
    """In the order of the file."""
    not_judged: tuple[str, ...] = ()
    """What could not be judged, and what to give so that it can."""

    @property
    def errors(self) -> list[Finding]:
        """The findings that are no mere warnings."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "kind": self.kind,
            "ok": self.ok,
            "findings": [finding.as_dict() for finding in self.findings],
            "not_judged": list(self.not_judged),
        }


def check(
    config: TrainingConfig,
    *,
    dataset_size: int | None = None,
    world_size: int | None = None,
    allow: Collection[str] = (),
) -> CheckReport:
    """Everything that is wrong with a configuration, without loading a model or data.

    Args:
        config: From `TrainingConfig.read`.
        dataset_size: Rows of the training data, where the length of the run follows from it.
        world_size: Processes; by default those of the launch line in the file.
        allow: Keys that a script of your own takes.

    Raises:
        ValueError: It is a configuration of another program, or a number given here is none.
    """
    from hf_sched.check import bounds, combinations, construct, deepspeed, grpo, keys, renamed, schedule, values
    from hf_sched.check.foreign import check_not_foreign
    from hf_sched.check.horizon import find_horizon
    from hf_sched.check.subject import Subject
    from hf_sched.plan.world_size import find_world_size

    check_not_foreign(config.given, config.source)
    for name, number in (("dataset_size", dataset_size), ("world_size", world_size)):
        if number is not None:
            Whole(1)(name, number)
    subject = Subject(config, dataset_size, world_size, frozenset(allow))
    found = [*keys.check_repeated(subject), *keys.check_keys(subject), *renamed.deprecated(subject)]
    found += values.check_values(subject)
    found += bounds.check_bounds(subject)
    found += combinations.check_combinations(subject)
    try:
        processes = find_world_size(config, world_size)
        known = None if processes.assumed else processes.processes
    except ValueError as error:
        subject.not_judged.append(f"the number of processes: {error}")
        known = None
    found += grpo.check_generation(subject, known)
    named = re.search(r"--(?:config[_-]file|accelerate_config)[ =](\S+)", config.comments)
    launch = named[1] if named else config.given.get("accelerate_config")
    found += deepspeed.check_deepspeed(subject, str(launch) if launch else None)
    found += construct.check_construction(subject, {finding.key: finding for finding in found})
    if config.given.get("anneal_from"):
        subject.not_judged.append("the schedule: it is the cooldown of another run's checkpoint (`anneal_from`)")
    else:
        wrong = {finding.key.split(".")[0] for finding in found if finding.severity == "error"}
        found += schedule.check_schedule(subject, find_horizon(subject, wrong))
    return CheckReport(config.source, config.kind, tuple(_in_order(found)), tuple(subject.not_judged))


def _in_order(found: list[Finding]) -> list[Finding]:
    """By line, once each; of several errors about a value that is of no use the first says enough."""
    unique = list(dict.fromkeys((f.key, f.line, f.severity, f.message) for f in found))
    first = {(f.key, f.line, f.severity, f.message): f for f in reversed(found)}
    return sorted((first[each] for each in unique), key=lambda finding: finding.line or 0)
