"""The arguments of `hf_sched.lightning`; `tests/hosts` trains with Lightning itself."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

import hf_sched


def configured(name: str, steps: float = 60, batches: float = 40, **arguments: object) -> dict:
    """What `configure_optimizers` returns in a run whose optimizer steps accumulate two batches each."""
    run = {"estimated_stepping_batches": steps, "num_training_batches": batches, "max_steps": -1}
    module = SimpleNamespace(trainer=SimpleNamespace(**run, accumulate_grad_batches=2))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    return hf_sched.lightning(module, optimizer, name, **arguments)


@pytest.mark.parametrize("warmup_steps", [6, 0.1])
def test_warmup_and_epochs_are_in_optimizer_steps(warmup_steps):
    result = configured("wsd:decay=1ep", warmup_steps=warmup_steps, floor_ratio=0.1)
    assert result["lr_scheduler"]["interval"] == "step"
    assert str(result["lr_scheduler"]["scheduler"].schedule) == "warmup 6 | hold 34 | decay 20 1-sqrt; floor 0.1"


@pytest.mark.parametrize("steps", [-1, math.inf])
def test_a_run_of_unknown_length_needs_max_steps(steps):
    with pytest.raises(hf_sched.ArgumentError, match="`max_steps` must be the Trainer's number of optimizer steps"):
        configured("wsd", steps, math.inf)
