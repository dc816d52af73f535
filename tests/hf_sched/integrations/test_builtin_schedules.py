"""Descriptions, arguments and curves of transformers' own schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.trainer_utils import SchedulerType

from hf_sched.integrations import builtin_schedules as builtin
from hf_sched.integrations.builtin_schedules import BUILTIN
from hf_sched.schedules.registry import BUILTIN_NAMES
from hf_sched.schedules.validation import ArgumentError

PEAK = 3e-4
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "linear": [{}],
    "cosine": [{}, {"num_cycles": 1.25}],
    "cosine_with_restarts": [{}, {"num_cycles": 3}],
    "polynomial": [{}, {"lr_end": 1e-5, "power": 2.0}],
    "constant": [{}],
    "constant_with_warmup": [{}],
    "inverse_sqrt": [{}, {"timescale": 4}],
    "cosine_with_min_lr": [{"min_lr": 1e-5}, {"min_lr_rate": 0.1, "num_cycles": 2}],
    "cosine_warmup_with_min_lr": [{"min_lr": 1e-5}, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2}],
    "warmup_stable_decay": [
        {"num_decay_steps": 4},
        {"num_decay_steps": 5, "min_lr_ratio": 0.1, "warmup_type": "1-sqrt", "decay_type": "1-sqrt"},
    ],
}
assert {*ARGUMENTS, "reduce_lr_on_plateau", "greedy"} == set(BUILTIN) == set(BUILTIN_NAMES)
CASES = [(name, arguments) for name, several in ARGUMENTS.items() for arguments in several]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
@pytest.mark.parametrize(("total", "warmup"), [(20, 0), (20, 1), (20, 7), (1, 0), (5, 9)], ids=str)
def test_curve_equals_the_rates_of_transformers_scheduler(name, arguments, total, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = transformers.get_scheduler(name, optimizer, warmup, total, arguments)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # Numbers may arrive as text, since YAML reads `1e-7` as text.
    for given in (arguments, {key: str(value) for key, value in arguments.items()}):
        curve = builtin.curve(name, given, num_training_steps=total, num_warmup_steps=warmup, peak=PEAK)
        np.testing.assert_array_equal(curve, rates)


INSTALLED = [name for name in BUILTIN_NAMES if name in {member.value for member in SchedulerType}]


@pytest.mark.parametrize("name", INSTALLED)
def test_arguments_have_readers_that_accept_the_defaults(name):
    readers = builtin.readers(name)
    for key, parameter in builtin.parameters(name).items():
        if parameter.default not in (parameter.empty, None):
            assert readers[key](key, parameter.default) == parameter.default
    assert builtin.has_warmup(name) == (name not in ("constant", "reduce_lr_on_plateau", "greedy"))


@pytest.mark.parametrize("name", [name for name in ("reduce_lr_on_plateau", "greedy") if name in INSTALLED])
def test_schedule_that_follows_a_metric_has_arguments_but_no_curve(name):
    assert {"factor", "patience", "cooldown"} <= set(builtin.parameters(name))
    assert builtin.curve(name, {"patience": 3}, num_training_steps=10) is None


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("cosin", {}, r"`lr_scheduler_type` must be one of .*, received 'cosin'; did you mean 'cosine'\?"),
        ("cosine", {"num_training_steps": 1}, "`num_training_steps` is not an argument of cosine"),
        ("cosine", {"num_cycle": 2}, r"`num_cycle` is not an argument of cosine.*did you mean 'num_cycles'\?"),
        ("warmup_stable_decay", {}, "rejected by transformers' warmup_stable_decay .* 'num_decay_steps'"),
        ("polynomial", {"lr_end": 1}, "must be smaller than initial lr"),
        ("polynomial", {"lr_end": "low"}, "`lr_end` must be a finite number, received 'low'"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "decay_type": "sqrt"}, "Unknown decay type"),
    ],
)
def test_wrong_arguments_are_rejected(name, arguments, words):
    with pytest.raises(ArgumentError, match=words):
        builtin.curve(name, arguments, num_training_steps=10)
