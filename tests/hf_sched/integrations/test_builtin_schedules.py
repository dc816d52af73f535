"""What we show of transformers' own schedules is what transformers plays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.trainer_utils import SchedulerType

from hf_sched.integrations import builtin_schedules as builtin
from hf_sched.integrations.builtin_schedules import BUILTIN

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
        {"num_decay_steps": 4, "num_stable_steps": 3, "warmup_type": "cosine", "decay_type": "linear"},
        {"num_decay_steps": 5, "min_lr_ratio": 0.1, "warmup_type": "1-sqrt", "decay_type": "1-sqrt"},
        {"num_decay_steps": 0},
    ],
}
CASES = [(name, arguments) for name, several in ARGUMENTS.items() for arguments in several]


def played(name: str, total: int, warmup: int, arguments: dict[str, Any]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = transformers.get_scheduler(name, optimizer, warmup, total, arguments)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
@pytest.mark.parametrize(("total", "warmup"), [(20, 0), (20, 1), (20, 7), (1, 0), (5, 9)], ids=str)
def test_curves_are_those_that_transformers_plays(
    name: str, arguments: dict[str, Any], total: int, warmup: int
) -> None:
    curve = builtin.curve(name, num_training_steps=total, num_warmup_steps=warmup, peak=PEAK, **arguments)
    assert curve is not None
    np.testing.assert_allclose(curve, played(name, total, warmup, arguments), rtol=1e-12, atol=1e-20)


def test_every_built_in_schedule_is_here() -> None:
    theirs = {member.value for member in SchedulerType} & set(BUILTIN)
    assert theirs == set(BUILTIN)
    assert set(ARGUMENTS) | {"reduce_lr_on_plateau", "greedy"} == set(BUILTIN)


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_what_follows_a_metric_has_no_curve_and_the_arguments_of_its_class(name: str) -> None:
    import inspect

    cls = torch.optim.lr_scheduler.ReduceLROnPlateau if name != "greedy" else transformers.optimization.GreedyLR
    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name not in ("self", "optimizer")
    }
    assert {name: parameter.default for name, parameter in BUILTIN[name].parameters.items()} == theirs
    assert builtin.curve(name, num_training_steps=10) is None


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("cosin", {}, r"'cosin' is no schedule of transformers; did you mean 'cosine'\?"),
        ("cosine", {"num_cycle": 2}, r"cosine has no argument `num_cycle` .*did you mean 'num_cycles'\?"),
        ("constant", {"floor_ratio": 0.1}, r"constant has no argument `floor_ratio` .* It takes none\."),
        ("warmup_stable_decay", {}, "needs the argument `num_decay_steps`"),
        ("cosine_with_min_lr", {}, "give either `min_lr` or `min_lr_rate`"),
        ("cosine_with_min_lr", {"min_lr": 1e-5, "min_lr_rate": 0.1}, "give either `min_lr` or `min_lr_rate`"),
        ("polynomial", {"lr_end": 1}, "`lr_end` must be less than the learning rate"),
        ("warmup_stable_decay", {"num_decay_steps": 1, "decay_type": "sqrt"}, "`decay_type` must be one of"),
    ],
)
def test_wrong_arguments_are_answered(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        builtin.curve(name, num_training_steps=10, **arguments)
