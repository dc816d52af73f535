"""Checks of a configuration before a launch: all mistakes at once, each with its remedy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hf_sched.check.finding import CheckReport, Finding
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import ArgumentError, Whole

__all__ = ["CheckReport", "Finding", "check"]


def check(
    config: TrainingConfig,
    *,
    dataset_size: int | None = None,
    num_processes: int | None = None,
    accelerate_config: str | None = None,
    allow: Collection[str] = (),
) -> CheckReport:
    """Find everything that is wrong with a configuration, without loading a model or data.

    Args:
        config: The configuration, from `TrainingConfig.read`.
        dataset_size: Samples of the training data, if the length of the run depends on it.
        num_processes: The number of processes. None for the number in the Accelerate configuration, if there is one.
        accelerate_config: The file for `accelerate launch --config_file`. None for the one that the arguments name.
        allow: Keys that your own script accepts.

    Raises:
        ValueError: The configuration is for another program, or `dataset_size` or `num_processes` is not a whole
            number from 1 up.

    Example:
        >>> check(TrainingConfig("sft", {"lerning_rate": 1e-4})).findings[0].message
        'is not an argument of SFT: did you mean `learning_rate`?'
    """
    from hf_sched.check import bounds, combinations, deepspeed, generations, keys, schedule, values
    from hf_sched.check.horizon import find_horizon
    from hf_sched.check.subject import Subject
    from hf_sched.plan.launch import find_world_size, read_accelerate_config
    from hf_sched.plan.plan import assumptions

    keys.check_program(config.given, config.source)
    for name, number in (("dataset_size", dataset_size), ("num_processes", num_processes)):
        if number is not None:
            Whole(1)(name, number)
    found, processes = [], None
    launch: Mapping[str, Any] | None = None
    subject = Subject(config, dataset_size, num_processes, frozenset(allow))
    try:
        launch = read_accelerate_config(config, accelerate_config)
        processes = find_world_size(config, num_processes, accelerate_config)
        known = None if processes.assumed else processes.processes
        subject = Subject(config, dataset_size, known, frozenset(allow))
    except ArgumentError as error:
        found.append(subject.rejected(error))
    found += [*keys.check_keys(subject), *values.check_values(subject)]
    found += [*bounds.check_bounds(subject), *combinations.check_combinations(subject)]
    found += generations.check_generations(subject, _wrong(found))
    launch_name = str(accelerate_config or config.given.get("accelerate_config"))
    found += deepspeed.check_deepspeed(subject, launch, launch_name)
    if not _wrong(found):
        found += combinations.check_construction(subject, {finding.key for finding in found})
    if config.given.get("anneal_from"):
        subject.not_judged.append("the schedule: it is the cooldown of another run's checkpoint (`anneal_from`)")
    else:
        found += schedule.check_schedule(subject, find_horizon(subject, _wrong(found)))
    in_order = sorted(_unique(found), key=lambda finding: finding.line or 0)
    assumed = assumptions(config, processes)
    return CheckReport(config.source, config.kind, tuple(in_order), tuple(subject.not_judged), assumed)


def _wrong(found: list[Finding]) -> set[str]:
    return {finding.key.split(".")[0] for finding in found if finding.severity == "error"}


def _unique(found: list[Finding]) -> list[Finding]:
    return list({(one.key, one.line, one.severity, one.message): one for one in found}.values())
