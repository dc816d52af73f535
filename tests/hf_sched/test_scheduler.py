"""The torch scheduler: real optimizers, several groups, saved and loaded state."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
import transformers
from torch.optim.lr_scheduler import LRScheduler

import hf_sched


def make_optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return torch.optim.AdamW(groups)


def make(optimizer: torch.optim.Optimizer, name: str = "cosine_floor", steps: int = 20, warmup: int = 4, **kwargs):
    return hf_sched.get_scheduler(name, optimizer, warmup, steps, kwargs)


def play(optimizer: torch.optim.Optimizer, scheduler: LRScheduler, steps: int) -> np.ndarray:
    """The learning rates used, of shape (steps, groups)."""
    used = []
    for _ in range(steps):
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return np.array(used)


@pytest.mark.parametrize("floor", [{"floor_ratio": 0.1}, {"min_lr": 0.001}])
@pytest.mark.parametrize("name", hf_sched.available())
def test_every_group_follows_its_own_curve_and_then_its_floor(name, floor):
    optimizer = make_optimizer(1.0, 0.01)
    kwargs = {**floor, **({"num_cycles": 2} if name == "cosine_restarts" else {})}
    used = play(optimizer, make(optimizer, name, **kwargs), 25)
    schedule = hf_sched.build(name, num_training_steps=20, num_warmup_steps=4, **kwargs)
    for group, peak in enumerate((1.0, 0.01)):
        np.testing.assert_array_equal(used[:20, group], schedule.curve(peak=peak))
        np.testing.assert_allclose(used[19:, group], schedule.floor(peak), rtol=1e-12)


def test_a_floor_above_the_peak_names_the_group():
    with pytest.raises(ValueError, match=r"parameter group 1: `min_lr` must be at most the peak learning rate 0.01"):
        make(make_optimizer(1.0, 0.01), min_lr=0.5)


def test_it_keeps_the_contract_of_torch():
    optimizer = make_optimizer(1.0)
    scheduler = make(optimizer)
    assert isinstance(scheduler, LRScheduler)
    assert not hasattr(scheduler, "total_steps")  # Accelerate would take it for OneCycle
    assert (scheduler.last_epoch, scheduler._step_count) == (0, 1)
    optimizer.step()
    scheduler.step()
    assert (scheduler.last_epoch, scheduler._step_count) == (1, 2)
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]] == [0.5]
    fresh = make_optimizer(1.0)
    early = make(fresh)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        early.step()


def test_a_tensor_learning_rate_stays_the_same_tensor():
    rate = torch.tensor(0.5, dtype=torch.float64)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=rate, foreach=False, capturable=False)
    scheduler = make(optimizer)
    held = optimizer.param_groups[0]["lr"]
    used = play(optimizer, scheduler, 20)
    assert optimizer.param_groups[0]["lr"] is held
    schedule = hf_sched.build("cosine_floor", num_training_steps=20, num_warmup_steps=4)
    np.testing.assert_array_equal(used[:, 0], schedule.curve(peak=0.5))


def saved(state: object) -> dict:
    """Through a file, the way the Trainer saves and loads it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_a_loaded_state_goes_on_exactly():
    whole_optimizer = make_optimizer(1.0, 0.01)
    whole = play(whole_optimizer, make(whole_optimizer), 20)
    first = make_optimizer(1.0, 0.01)
    scheduler = make(first)
    play(first, scheduler, 7)
    second = make_optimizer(1.0, 0.01)
    resumed = make(second)
    second.load_state_dict(saved(first.state_dict()))
    resumed.load_state_dict(saved(scheduler.state_dict()))
    assert resumed.get_last_lr() == whole[7].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses an optimizer step that came before the load
        np.testing.assert_array_equal(play(second, resumed, 13), whole[7:])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 30}, "curve was 'warmup 4 .* decay 16 .* now 'warmup 4 .* decay 26"),
        ({"warmup": 5}, "curve was 'warmup 4 .* now 'warmup 5"),
        ({"floor_ratio": 0.2}, r"curve was .*floor 0.1 \* peak', now .*floor 0.2 \* peak'"),
        ({"name": "warmup_cosine"}, "name was 'cosine_floor', now 'warmup_cosine'"),
        ({"rate": 0.5}, r"peak learning rates was \[1.0\], now \[0.5\]"),
    ],
)
def test_a_checkpoint_of_another_curve_is_refused(changed, message):
    state = saved(make(make_optimizer(1.0)).state_dict())
    other = make(make_optimizer(changed.pop("rate", 1.0)), **changed)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)


def test_a_checkpoint_of_a_builtin_schedule_is_refused():
    optimizer = make_optimizer(1.0)
    builtin = hf_sched.get_scheduler("cosine", optimizer, 4, 20)
    assert type(builtin).__name__ == "LambdaLR"
    with pytest.raises(ValueError, match=r"was not written by hf_sched .* this run asks for 'cosine_floor'"):
        make(make_optimizer(1.0)).load_state_dict(saved(builtin.state_dict()))


def test_a_wrong_name_is_refused_before_transformers_sees_it():
    with pytest.raises(ValueError, match="'cosin' is not the name of a schedule; did you mean 'cosine'"):
        hf_sched.get_scheduler("cosin", make_optimizer(1.0), 0, 10)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("constant", {}),
        ("cosine_with_restarts", {"num_cycles": 2}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 5}),
    ],
)
def test_transformers_own_names_are_passed_on_to_it(name, kwargs):
    ours, theirs = make_optimizer(1.0, 0.01), make_optimizer(1.0, 0.01)
    passed = play(ours, hf_sched.get_scheduler(name, ours, 4, 20, kwargs), 20)
    np.testing.assert_array_equal(passed, play(theirs, transformers.get_scheduler(name, theirs, 4, 20, kwargs), 20))


def test_a_float32_tensor_learning_rate_follows_its_own_peak():
    # What `capturable` optimizers hold; the peak is the float32 number, not the one that was typed.
    rates = [torch.tensor(0.3), torch.tensor(0.07)]
    optimizer = make_optimizer(*rates)
    used = play(optimizer, make(optimizer), 20)
    schedule = hf_sched.build("cosine_floor", num_training_steps=20, num_warmup_steps=4)
    for group, rate in enumerate((0.3, 0.07)):
        curve = schedule.curve(peak=float(np.float32(rate)))
        np.testing.assert_array_equal(used[:, group], curve.astype(np.float32).astype(float))


@pytest.mark.parametrize("rate", [0.3, torch.tensor(0.3, dtype=torch.float64)], ids=["number", "tensor"])
def test_a_state_is_plain_and_names_the_curve(rate):
    optimizer = make_optimizer(rate)
    scheduler = make(optimizer)
    play(optimizer, scheduler, 3)
    state = scheduler.state_dict()
    assert {type(value) for value in state.values()} <= {int, str, list}
    assert {type(value) for key in ("base_lrs", "_last_lr") for value in state[key]} == {float}
    assert saved(state) == state
    assert (state["name"], state["last_epoch"], state["num_training_steps"]) == ("cosine_floor", 3, 20)
    assert state["schedule"] == "warmup 4 linear 0.0 -> peak | decay 16 cosine peak -> floor; floor 0.1 * peak"


def test_a_refused_checkpoint_leaves_the_scheduler_as_it_was():
    optimizer = make_optimizer(1.0)
    other = make(optimizer, steps=30)
    play(optimizer, other, 5)
    scheduler = make(make_optimizer(1.0))
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match="written under another schedule"):
        scheduler.load_state_dict(saved(other.state_dict()))
    assert scheduler.state_dict() == before


def test_it_may_start_in_the_middle():
    # `last_epoch`, as torch has it: the groups bring their `initial_lr`.
    optimizer = make_optimizer(1.0, 0.01)
    for group, peak in zip(optimizer.param_groups, (1.0, 0.01), strict=True):
        group.update(initial_lr=peak, lr=123.0)
    schedule = hf_sched.build("cosine_floor", num_training_steps=20, num_warmup_steps=4)
    scheduler = hf_sched.ScheduleLR(optimizer, schedule, last_epoch=6)
    used = play(optimizer, scheduler, 13)
    for group, peak in enumerate((1.0, 0.01)):
        np.testing.assert_array_equal(used[:, group], schedule.curve(peak=peak)[7:])
