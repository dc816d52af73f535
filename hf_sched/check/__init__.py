"""Checks of a configuration before a launch: all mistakes at once, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

from hf_sched.check.combinations import check_combinations, check_construction, check_generations, check_packages
from hf_sched.check.deepspeed import check_deepspeed, check_launch
from hf_sched.check.finding import CheckReport, Finding
from hf_sched.check.keys import check_keys
from hf_sched.check.peak import check_peak
from hf_sched.check.schedule import check_schedule
from hf_sched.check.subject import Subject
from hf_sched.check.values import check_bounds, check_values
from hf_sched.plan.plan import assumptions
from hf_sched.plan.training_config import TrainingConfig

__all__ = ["Check", "CheckReport", "Finding", "check"]

Check: TypeAlias = Callable[[Subject], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    check_launch,
    check_keys,
    check_values,
    check_bounds,
    check_combinations,
    check_generations,
    check_deepspeed,
    check_construction,
    check_schedule,
    check_peak,
    check_packages,
)
"""Functions that yield findings, in this order: those after `check_values` see right types only (`Subject.get`)."""


def check(
    config: TrainingConfig,
    *,
    dataset_size: int | None = None,
    num_processes: int | None = None,
    accelerate_config: str | None = None,
    tokens_per_sample: float | None = None,
    allow: Collection[str] | None = None,
    more: Sequence[Check] = (),
) -> CheckReport:
    """Find everything that is wrong with a configuration, without loading a model or data.

    Args:
        config: The configuration, from `TrainingConfig.read`.
        dataset_size: Samples of the training data, if the length of the run depends on it.
        num_processes: The number of processes. None for the number in the Accelerate configuration, if there is one.
        accelerate_config: The file for `accelerate launch --config_file`. None for the one that the arguments name.
        tokens_per_sample: The mean number of tokens of these samples, if the schedule has durations in tokens.
        allow: Keys that your own script accepts; None for a script that has no others.
        more: Checks of the script's own arguments, after all others.

    Examples:
        >>> check(TrainingConfig("sft", {"lerning_rate": 1e-4})).findings[0].message
        'is not an argument of SFT: did you mean `learning_rate`?'
    """
    subject = Subject(config, dataset_size, tokens_per_sample, num_processes, accelerate_config, allow)
    for find in (*CHECKS, *more):
        for finding in find(subject):
            if finding not in subject.findings:
                subject.findings.append(finding)
    in_order = sorted(subject.findings, key=lambda finding: finding.line or 0)
    assumed = assumptions(config, subject.world_size)
    return CheckReport(config.source, config.kind, tuple(in_order), tuple(subject.not_judged), assumed, subject.peak)
