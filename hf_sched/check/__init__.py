"""Checks of a configuration before a launch: all mistakes at once, each with its remedy."""

from __future__ import annotations

from collections.abc import Collection

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

    Examples:
        >>> check(TrainingConfig("sft", {"lerning_rate": 1e-4})).findings[0].message
        'is not an argument of SFT: did you mean `learning_rate`?'
    """
    from hf_sched.check import combinations, deepspeed, grpo, keys, schedule_arguments, values
    from hf_sched.check.context import Subject
    from hf_sched.plan.plan import assumptions
    from hf_sched.plan.processes import find_world_size, read_accelerate_config

    keys.check_program(config.given, config.source)
    for name, number in (("dataset_size", dataset_size), ("num_processes", num_processes)):
        if number is not None:
            Whole(1)(name, number)
    subject = Subject(config, dataset_size, num_processes, allow)
    launch = processes = None
    try:
        launch = read_accelerate_config(config, accelerate_config)
        processes = find_world_size(config, num_processes, accelerate_config)
        subject.num_processes = None if processes.assumed else processes.processes
    except ArgumentError as error:
        subject.rejected(error)
    keys.check_keys(subject)
    values.check_values(subject)
    values.check_bounds(subject)
    combinations.check_combinations(subject)
    grpo.check_generations(subject)
    deepspeed.check_deepspeed(subject, launch, accelerate_config)
    combinations.check_construction(subject)
    schedule_arguments.check_schedule(subject)
    in_order = sorted(subject.findings, key=lambda finding: finding.line or 0)
    assumed = assumptions(config, processes)
    return CheckReport(config.source, config.kind, tuple(in_order), tuple(subject.not_judged), assumed)
