"""Schedules on a command line: names, arguments, phases, and their curves."""

from __future__ import annotations

import numpy as np
import pytest

import hf_sched
from hf_sched.integrations import builtin_schedules as builtin
from hf_sched.reference.named_schedule import NamedSchedule


def test_curves_are_those_of_the_schedules() -> None:
    found = NamedSchedule.read("cosine_floor:floor_ratio=0.2").curve(100, 10, 3e-4)
    assert found is not None
    schedule = hf_sched.build("cosine_floor", num_training_steps=100, num_warmup_steps=10, floor_ratio=0.2)
    assert found.schedule == schedule
    np.testing.assert_array_equal(found.curve, schedule.curve(peak=3e-4))

    found = NamedSchedule.read("cosine_with_min_lr:min_lr=1e-5").curve(100, 10, 3e-4)
    assert found is not None and found.schedule is None
    curve = builtin.curve(
        "cosine_with_min_lr", {"min_lr": 1e-5}, num_training_steps=100, num_warmup_steps=10, peak=3e-4
    )
    np.testing.assert_array_equal(found.curve, curve)

    assert NamedSchedule.read("greedy").curve(100, 10, 3e-4) is None


@pytest.mark.parametrize(
    ("text", "needs_peak", "has_own_warmup"),
    [
        ("wsd", False, False),
        ("wsd:min_lr=1e-6", True, False),
        ("phases:{phases: 'decay; min_lr 1e-6'}", True, False),
        ("polynomial", True, False),
        ("warmup 5% | hold", False, True),
        ("warmup_cosine:warmup=10", False, True),
    ],
)
def test_a_named_schedule_knows_whether_it_needs_a_peak_or_has_a_warmup(
    text: str, needs_peak: bool, has_own_warmup: bool
) -> None:
    requested = NamedSchedule.read(text)
    assert (requested.needs_peak, requested.has_own_warmup) == (needs_peak, has_own_warmup)
