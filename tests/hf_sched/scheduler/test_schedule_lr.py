"""`ScheduleLR` on real optimizers: parameter groups, saved and loaded state, copies."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LRScheduler

import hf_sched
from hf_sched import Schedule
from hf_sched.scheduler import schedule_lr as scheduler_module

CURVE = hf_sched.build("cosine_floor", num_training_steps=20, num_warmup_steps=4)
GROUPS = pytest.mark.parametrize("peaks", [(1.0,), (0.3,) * 3, (0.3, 1.0, 0.01)], ids=["one", "equal", "different"])


@pytest.fixture(params=[1, 3, 7], ids="ahead {}".format)
def small_chunks(request, monkeypatch):
    """Compute only a few rates at once, so that runs cross many chunk borders."""
    monkeypatch.setattr(scheduler_module, "_CHUNK", request.param)


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


def planned(schedule: Schedule, steps: int, *peaks: float) -> np.ndarray:
    """The learning rates of the first steps, held at the last one past the end; of shape (steps, groups)."""
    curves = np.array([schedule.curve(peak=peak) for peak in peaks]).T
    return curves[np.minimum(np.arange(steps), len(curves) - 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_learning_rate_stays_the_same_tensor_and_follows_its_own_peak(dtype, small_chunks):
    # `capturable` optimizers hold float32 tensors; the peak is the float32 number, not the one that was typed.
    rates = [torch.tensor(0.3, dtype=dtype), torch.tensor(0.07, dtype=dtype)]
    optimizer = make_optimizer(*rates)
    held = [group["lr"] for group in optimizer.param_groups]
    expected = planned(CURVE, 20, *map(float, rates))
    scheduler = make(optimizer)
    kept, used = [], []
    for _ in range(20):
        kept.append(scheduler.get_last_lr())  # copies, so that they can be kept
        used.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, held, strict=True))
    np.testing.assert_array_equal(used, torch.tensor(expected, dtype=dtype).double())
    np.testing.assert_array_equal(kept, used)


def saved(state: object) -> dict:
    """Through a file, the way the Trainer saves and loads it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("rate", [0.3, torch.tensor(0.3, dtype=torch.float64)], ids=["number", "tensor"])
def test_state_dict_is_plain_and_records_the_curve(rate):
    optimizer = make_optimizer(rate)
    scheduler = make(optimizer)
    play(optimizer, scheduler, 3)
    state = scheduler.state_dict()
    assert saved(state) == state
    assert {type(value) for value in (*state.values(), *state["base_lrs"], *state["_last_lr"])} <= {
        *(int, float, str, list, dict, type(None))
    }
    assert (state["name"], state["last_epoch"], state["num_training_steps"]) == ("cosine_floor", 3, 20)
    assert state["schedule"] == "warmup 4 | decay 16 cosine; floor 0.1"


def test_builtin_names_are_passed_to_transformers():
    arguments = ("cosine_with_min_lr", make_optimizer(1.0, 0.01), 4, 20, {"min_lr_rate": 0.1})
    passed = play(arguments[1], hf_sched.get_scheduler(*arguments), 20)
    theirs = make_optimizer(1.0, 0.01)
    expected = transformers.get_scheduler(arguments[0], theirs, *arguments[2:])
    np.testing.assert_array_equal(passed, play(theirs, expected, 20))


def test_a_checkpoint_or_last_epoch_continues_in_the_middle():
    given = make_optimizer(1.0, 0.01)
    for group, peak in zip(given.param_groups, (1.0, 0.01), strict=True):
        group.update(initial_lr=peak, lr=123.0)  # as torch has it
    started = hf_sched.ScheduleLR(given, CURVE, last_epoch=6)
    first, second = make_optimizer(1.0, 0.01), make_optimizer(1.0, 0.01)
    scheduler, resumed = make(first), hf_sched.ScheduleLR(second, CURVE, name="another name")
    play(first, scheduler, 7)
    second.load_state_dict(saved(first.state_dict()))
    resumed.load_state_dict(saved(scheduler.state_dict()))
    assert resumed.state_dict()["name"] == "another name"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses an optimizer step that came before the load
        for optimizer, continued in ((given, started), (second, resumed)):
            np.testing.assert_array_equal(play(optimizer, continued, 13), planned(CURVE, 20, 1.0, 0.01)[7:])


@GROUPS
def test_stepping_past_the_end_warns_once_and_says_why(peaks, small_chunks):
    optimizer = make_optimizer(*peaks)
    scheduler = make(optimizer)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        play(optimizer, scheduler, 20)
        assert warned == []  # the last optimizer step is followed by a step of the scheduler
        play(optimizer, scheduler, 30)
    (message,) = [str(warning.message) for warning in warned]
    assert message.startswith("cosine_floor: stepped beyond its 20 steps; the last learning rate is held.")
    assert "hf_sched.prepare_scheduler" in message


@GROUPS
def test_rates_are_right_in_a_long_run(peaks):
    steps = 2 * scheduler_module._CHUNK + 1000
    schedule = hf_sched.build("wsd", num_training_steps=steps, num_warmup_steps=1000)
    optimizer = make_optimizer(*peaks)
    scheduler = hf_sched.ScheduleLR(optimizer, schedule)
    optimizer.step()
    used = []
    for _ in range(steps + 10):
        used.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step()
    np.testing.assert_array_equal(used, planned(schedule, steps + 10, *peaks))
    assert (scheduler.last_epoch, scheduler._step_count) == (steps + 10, steps + 11)


OPERATIONS = ("step", "step to", "set last_epoch", "load scheduler", "load optimizer", "tensors", "copy", "pickle")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    peaks=st.lists(st.sampled_from([0.3, 1.0]), min_size=1, max_size=3),
    operations=st.lists(st.tuples(st.sampled_from(("step", *OPERATIONS)), st.integers(0, 30)), max_size=30),
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_sequence_of_operations_equals_torchs_lambda_lr(peaks, operations, small_chunks):
    rates = [CURVE.curve(peak=peak) / peak for peak in peaks]
    ours, theirs = make_optimizer(*peaks), make_optimizer(*peaks)
    curves = [lambda step, rate=rate: float(rate[min(step, 19)]) for rate in rates]
    pairs = [(ours, make(ours)), (theirs, torch.optim.lr_scheduler.LambdaLR(theirs, curves))]
    states = [scheduler.state_dict() for _, scheduler in pairs]
    for what, number in operations:
        for i, (optimizer, scheduler) in enumerate(pairs):
            before = [group["lr"] for group in optimizer.param_groups]
            if what == "step":
                optimizer.step()
                scheduler.step()
            elif what == "step to":
                scheduler.step(number)
            elif what == "set last_epoch":
                scheduler.last_epoch = number
            elif what == "load scheduler":
                scheduler.load_state_dict(states[i])
                states[i] = scheduler.state_dict()
            elif what in ("load optimizer", "tensors"):
                state = optimizer.state_dict()
                for group in state["param_groups"] if what == "tensors" else ():
                    group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
                optimizer.load_state_dict(state)
            elif what == "pickle" and i == 0:  # torch cannot pickle a LambdaLR of lambdas
                pairs[i] = pickle.loads(pickle.dumps((optimizer, scheduler)))
            else:
                pairs[i] = copy.deepcopy((optimizer, scheduler))
            if i == 0 and what in ("step", "step to") and isinstance(before[0], torch.Tensor):
                assert all(group["lr"] is lr for group, lr in zip(optimizer.param_groups, before, strict=True))
        (ours, our_scheduler), (_, their_scheduler) = pairs
        assert our_scheduler.last_epoch == their_scheduler.last_epoch
        assert our_scheduler._step_count == their_scheduler._step_count
        np.testing.assert_allclose(our_scheduler.get_last_lr(), [float(group["lr"]) for group in ours.param_groups])
        if what in ("step", "step to"):
            np.testing.assert_allclose(our_scheduler.get_last_lr(), their_scheduler.get_last_lr(), rtol=1e-12)
