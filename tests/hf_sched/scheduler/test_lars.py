"""`lars_warmup`: each layer's learning rate follows its trust ratio during the warmup, and the curve after it."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainingArguments

import hf_sched
from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from tests.helpers.extras import require
from tests.helpers.trainer import logged, train

STEPS, WARMUP, PEAK, COEFFICIENT, DECAY = 10, 5, 0.1, 0.02, 0.01
KWARGS = {"trust_coefficient": COEFFICIENT, "after": "cosine_floor"}


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def curve(peak: float = PEAK) -> np.ndarray:
    return hf_sched.build("lars_warmup", num_training_steps=STEPS, num_warmup_steps=WARMUP, **KWARGS).curve(peak=peak)


def formula(parameter: torch.nn.Parameter, step: int) -> float:
    """The learning rate of a layer at a step, by an independent formula."""
    gradient = torch.zeros(1) if parameter.grad is None else parameter.grad
    weight, gradient = (math.sqrt(float((x.double() ** 2).sum())) for x in (parameter.detach(), gradient))
    ratio = min(COEFFICIENT * weight / (gradient + DECAY * weight), 1.0) if weight and gradient else 1.0
    progress = min((step + 1) / WARMUP, 1.0)
    return float(curve()[step]) * (progress + (1 - progress) * ratio)


def play(model: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler, steps: range) -> np.ndarray:
    """Train and compare with the formula; the learning rates that each step used, of shape (steps, groups)."""
    used = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(16, 4, generator=generator)).square().mean().backward()
        expected = [formula(group["params"][0], step) for group in optimizer.param_groups]
        optimizer.step()
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        assert scheduler.get_last_lr() == used[-1]
        np.testing.assert_allclose(used[-1], expected, rtol=1e-5)  # norms are taken in float32
        scheduler.step()
    return np.array(used)


def make(model: torch.nn.Module, wrap=lambda optimizer: optimizer):
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=PEAK, weight_decay=DECAY))
    return optimizer, hf_sched.get_scheduler("lars_warmup", optimizer, WARMUP, STEPS, KWARGS)


@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: Accelerator(cpu=True).prepare(o)], ids=["torch", "accelerate"])
def test_layers_follow_their_trust_ratios_in_the_warmup_and_then_the_curve(wrap):
    model = network()
    optimizer, scheduler = make(model, wrap)
    del scheduler  # a new one may replace it
    scheduler = hf_sched.get_scheduler("lars_warmup", optimizer, WARMUP, STEPS, KWARGS)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1, 1]
    used = play(model, optimizer, scheduler, range(STEPS))
    assert len(set(used[0])) > 2  # layers do differ
    assert (used <= curve()[:, None]).all()
    np.testing.assert_array_equal(used[WARMUP - 1 :], np.repeat(curve()[WARMUP - 1 :, None], 4, axis=1))


def test_a_layer_without_weights_or_gradient_is_on_the_curve():
    model, unused = network(), torch.nn.Parameter(torch.ones(2))
    with torch.no_grad():
        model[2].weight.zero_()  # its own norm is 0, and no gradient reaches the layer below
    optimizer = torch.optim.SGD([*model.parameters(), unused], lr=PEAK, weight_decay=DECAY)
    scheduler = hf_sched.get_scheduler("lars_warmup", optimizer, WARMUP, STEPS, KWARGS)
    used = play(model, optimizer, scheduler, range(1))[0].tolist()
    assert [*used[:3], used[4]] == [curve()[0]] * 4
    assert used[3] < curve()[0]


@pytest.mark.parametrize("clip", [False, True], ids=["scaled", "unscaled before"])
def test_gradient_scaler_does_not_change_the_trust_ratios(clip):
    used = []
    for scaler in (torch.amp.GradScaler("cpu", 2.0**12), torch.amp.GradScaler("cpu", enabled=False)):
        model = network()
        # A fused optimizer unscales the gradients itself.
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, fused=True)
        scheduler = hf_sched.get_scheduler("lars_warmup", optimizer, WARMUP, STEPS, KWARGS)
        for step in range(3):
            inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            scaler.scale(model(inputs).square().mean()).backward()
            if clip:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            used.append([group["lr"] for group in optimizer.param_groups])
            scheduler.step()
    np.testing.assert_allclose(used[:3], used[3:], rtol=1e-5)
    assert len({rate for rates in used[:1] for rate in rates}) > 2  # layers do differ


def test_learning_rates_that_are_tensors_differ_by_layer():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(PEAK, dtype=torch.float64), weight_decay=DECAY)
    play(model, optimizer, hf_sched.get_scheduler("lars_warmup", optimizer, WARMUP, STEPS, KWARGS), range(STEPS))


def test_split_groups_keep_options_and_peaks():
    model = network()
    groups = [{"params": model[0].parameters(), "weight_decay": 0.5}, {"params": model[2].parameters(), "lr": 0.01}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.8, 0.9))
    hf_sched.get_scheduler("lars_warmup", optimizer, WARMUP, STEPS, KWARGS)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [1.0, 1.0, 0.01, 0.01]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.5, 0.01, 0.01]
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}


def test_unavailable_norms_are_an_error_at_construction(monkeypatch):
    flat = torch.nn.Parameter(torch.ones(3))
    flat._fsdp_flattened = True
    with pytest.raises(ValueError, match="FSDP1 flattens"):
        make(torch.nn.ParameterList([flat]))
    require("deepspeed")
    monkeypatch.setitem(os.environ, "ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match=r"`lars` .* DeepSpeed does not provide: use DDP or FSDP2"):
        make(network())
    with pytest.raises(ValueError, match="DeepSpeed does not provide"):
        TrainingArguments("out", lr_scheduler_type="lars_warmup", use_cpu=True)


def test_trainer_logs_used_rates_and_resumes_within_the_warmup(model_path, tmp_path):
    # A hook of the optimizer sets the rates after all callbacks.
    used: list[list[float]] = []

    class Used(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            used.append([group["lr"] for group in optimizer.param_groups])

    given = {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {**KWARGS, "trust_coefficient": 1e-4}}
    given |= {"max_steps": STEPS, "warmup_steps": WARMUP, "save_strategy": "steps", "save_steps": 3}
    given["callbacks"] = [Used(), hf_sched.LearningRateLog()]
    trainer, _ = train(model_path, tmp_path / "whole", **given)
    rates = np.array(used)
    assert rates.shape == (STEPS, sum(1 for _ in trainer.model.parameters()))
    np.testing.assert_array_equal(logged(trainer, "learning_rate"), rates[:, 0])
    np.testing.assert_array_equal(logged(trainer, "learning_rate/group_0"), rates.max(axis=1))
    np.testing.assert_array_equal(logged(trainer, "learning_rate/group_0_min"), rates[: WARMUP - 1].min(axis=1))
    rows = read_learning_rates(tmp_path / "whole" / LEARNING_RATES)[1:WARMUP]
    assert [row["rates"] for row in rows] == [[[min(step), max(step)]] for step in rates[: WARMUP - 1].tolist()]
    planned = curve(peak=1e-2)
    assert (rates[: WARMUP - 1] < planned[: WARMUP - 1, None]).any(axis=1).all()
    np.testing.assert_array_equal(rates[WARMUP - 1 :, 0], planned[WARMUP - 1 :])
    used.clear()
    train(model_path, tmp_path / "resumed", resume=str(tmp_path / "whole" / "checkpoint-3"), **given)
    np.testing.assert_array_equal(used, rates[3:])
