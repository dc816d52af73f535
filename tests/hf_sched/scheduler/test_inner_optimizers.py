"""Every optimizer that trains follows the schedule: optimizers inside optimizers, and groups added in training."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.optim import SGD, AdamW, Optimizer

import hf_sched
from hf_sched.scheduler.param_groups import find_optimizers
from hf_sched.scheduler.resume import OnResume

CURVE = hf_sched.build("cosine_floor", num_training_steps=20, num_warmup_steps=4)
STEPS = range(20)


def parameters(count: int = 1) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(2)) for _ in range(count)]


class Holder(Optimizer):
    """Holds optimizers in an attribute, whatever its form, and has one more group for their parameters."""

    def __init__(self, held, inner):
        super().__init__([p for one in inner for group in one.param_groups for p in group["params"]], {"lr": 0.5})
        self.held, self.run = held, [lambda one=one: one.step() for one in inner]

    def step(self, closure=None):
        for step in self.run:
            step()


class Delegate(Optimizer):
    """Has no groups, and does not call torch's constructor."""

    def __init__(self, inner):
        self.base_optimizer, self.defaults, self.state = inner, inner.defaults, inner.state

    @property
    def param_groups(self):
        return self.base_optimizer.param_groups

    def step(self, closure=None):
        self.base_optimizer.step()


class Sharing(Optimizer):
    """Shares the list of groups with the inner optimizer, as SAM and Lookahead, until a state is loaded."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, inner.defaults)
        self.optimizer, self.param_groups = inner, inner.param_groups

    def step(self, closure=None):
        self.optimizer.step()


class Copies(Optimizer):
    """Has the very groups of the inner optimizer in another list, until a state is loaded."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure=None):
        self.inner.step()


def two() -> list[Optimizer]:
    return [SGD(parameters(), lr=2e-2), AdamW(parameters(), lr=1e-3)]


def after_load(wrapper: Optimizer) -> Optimizer:
    """Accelerate loads the state of each optimizer that it prepares, which gives it other groups."""
    wrapper.load_state_dict(wrapper.state_dict())
    assert wrapper.param_groups is not wrapper.optimizer.param_groups
    return wrapper


def train(optimizer, inner, scheduler, steps=STEPS) -> np.ndarray:
    """The rates that the steps of the inner optimizers used, of shape (steps, groups)."""
    used = []
    for _ in steps:
        used.append([float(group["lr"]) for one in inner for group in one.param_groups])
        for one in inner:
            for group in one.param_groups:
                for p in group["params"]:
                    p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
    return np.array(used)


def planned(*peaks: float, first: int = 0) -> np.ndarray:
    return np.array([CURVE.curve(peak=peak)[first:] for peak in peaks]).T


HOLDERS = {
    "list": lambda inner: Holder(inner, inner),
    "tuple": lambda inner: Holder(tuple(inner), inner),
    "dict": lambda inner: Holder(dict(enumerate(inner)), inner),
    "dict of lists": lambda inner: Holder({"all": [inner, []]}, inner),
    "delegates": lambda inner: Holder([Delegate(one) for one in inner], inner),
    "with an attribute each": lambda inner: Holder([Holder(one, [one]) for one in inner], inner),
}


@pytest.mark.parametrize("how", HOLDERS)
def test_inner_optimizers_follow_the_schedule_from_their_own_peaks(how):
    inner = two()
    wrapper = HOLDERS[how](inner)
    scheduler = hf_sched.ScheduleLR(wrapper, CURVE)
    trained = [scheduler.groups[number]["initial_lr"] for number in scheduler.trained]
    assert trained == [2e-2, 1e-3]  # not of the holders, which update nothing themselves
    assert scheduler.get_last_lr()[:2] == planned(*trained)[0].tolist()
    np.testing.assert_array_equal(train(wrapper, inner, scheduler), planned(2e-2, 1e-3))


@pytest.mark.parametrize(
    "wrap",
    [Delegate, Sharing, lambda one: after_load(Sharing(one)), lambda one: PostLocalSGDOptimizer(one, None)],
    ids=["delegate", "sharing", "sharing after a load", "torch's own"],
)
def test_wrapper_of_one_optimizer_trains_on_the_curve(wrap):
    inner = AdamW([{"params": parameters(), "lr": peak} for peak in (0.3, 0.01)])
    wrapper = wrap(inner)
    scheduler = hf_sched.ScheduleLR(wrapper, CURVE)
    assert [float(rate) for rate in scheduler.get_last_lr()][:2] == planned(0.3, 0.01)[0].tolist()
    step = inner if isinstance(wrapper, PostLocalSGDOptimizer) else wrapper
    np.testing.assert_array_equal(train(step, [inner], scheduler), planned(0.3, 0.01))


@pytest.mark.parametrize("sharing", [Sharing, Copies, lambda inner: Holder(inner, [inner])])
def test_inner_optimizer_stays_on_the_curve_if_a_state_is_loaded_after_the_scheduler_is_made(sharing):
    """A resume does this, and Accelerate when it prepares an optimizer."""
    inner = AdamW(parameters(), lr=0.01)
    wrapper = sharing(inner)
    scheduler = hf_sched.ScheduleLR(wrapper, CURVE)
    wrapper.load_state_dict(wrapper.state_dict())
    scheduler.set_rates()  # as at the start of a run
    np.testing.assert_array_equal(train(wrapper, [inner], scheduler), planned(0.01))


def test_an_optimizer_with_parameters_of_its_own_is_scheduled_beside_its_inner_one():
    inner = AdamW(parameters(), lr=1e-3)
    outer = SGD(parameters(), lr=0.3)
    outer.for_norms = inner
    scheduler = hf_sched.ScheduleLR(outer, CURVE)
    assert scheduler.trained == [0, 1]
    np.testing.assert_array_equal(train(outer, [outer, inner], scheduler), planned(0.3, 1e-3))


def test_cycles_and_unrelated_attributes_do_not_disturb_the_search():
    inner = two()
    wrapper = Holder([inner, inner], inner)
    wrapper.itself, inner[0].owner, wrapper.cyclic = wrapper, wrapper, []
    wrapper.cyclic.append(wrapper.cyclic)
    wrapper.state["text"] = wrapper.name = "SGD"
    assert find_optimizers(wrapper) == ([wrapper, *inner], inner, [wrapper])


def test_state_copies_and_pickles_keep_inner_optimizers():
    inner = two()
    scheduler = hf_sched.ScheduleLR(HOLDERS["list"](inner), CURVE)
    train(scheduler.optimizer, inner, scheduler, range(7))
    state = scheduler.state_dict()
    assert state["base_lrs"] == [2e-2, 1e-3, 0.5]
    again = two()
    resumed = hf_sched.ScheduleLR(HOLDERS["dict"](again), CURVE)
    resumed.load_state_dict(state)
    for copied in (lambda one: copy.deepcopy(one), lambda one: pickle.loads(pickle.dumps(one))):
        made = copied(resumed)
        assert [group["lr"] for group in made.groups] == planned(2e-2, 1e-3, 0.5)[7].tolist()
    np.testing.assert_array_equal(train(resumed.optimizer, again, resumed, range(13)), planned(2e-2, 1e-3, first=7))


def test_a_group_without_a_learning_rate_is_an_error():
    optimizer = SGD(parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = None  # Adafactor with `relative_step`
    with pytest.raises(ValueError, match=r"must be a number, received None: .*`relative_step`"):
        hf_sched.ScheduleLR(optimizer, CURVE)


def add(optimizer, lr=None, directly=False):
    group = {"params": parameters(), **({} if lr is None else {"lr": lr})}
    if directly:
        optimizer.param_groups.append({**optimizer.defaults, **group})
    else:
        optimizer.add_param_group(group)


@pytest.mark.parametrize("steps", [0, 1, 3, 19])
@pytest.mark.parametrize("wrap", [lambda one: one, Delegate, Sharing], ids=["plain", "delegate", "sharing"])
def test_added_group_is_on_the_curve_from_its_first_step(steps, wrap):
    optimizer = SGD(parameters(), lr=0.3)
    wrapper = wrap(optimizer)
    scheduler = hf_sched.ScheduleLR(wrapper, CURVE)
    train(wrapper, [optimizer], scheduler, range(steps))
    add(optimizer if wrap is Delegate else wrapper, 0.07)
    add(optimizer)  # with the optimizer's default
    np.testing.assert_array_equal(
        train(wrapper, [optimizer], scheduler, range(20 - steps)), planned(0.3, 0.07, 0.3, first=steps)
    )
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.3, 0.07, 0.3]
    groups = [{"params": parameters(), "lr": peak} for peak in (0.3, 0.07, 0.3)]
    hf_sched.ScheduleLR(wrap(SGD(groups)), CURVE).load_state_dict(scheduler.state_dict())


def test_group_added_to_an_inner_optimizer_or_to_the_list_of_groups_is_scheduled():
    inner = two()
    wrapper = Holder(inner, inner)
    scheduler = hf_sched.ScheduleLR(wrapper, CURVE)
    train(wrapper, inner, scheduler, range(3))
    add(inner[0], 0.07)
    assert inner[0].param_groups[1]["lr"] == CURVE.lr(3, peak=0.07)
    add(inner[1], 0.05, directly=True)
    assert scheduler.find_changed_group() is None
    assert inner[1].param_groups[1]["lr"] == CURVE.lr(3, peak=0.05)
    np.testing.assert_array_equal(train(wrapper, inner, scheduler, range(17)), planned(2e-2, 0.07, 1e-3, 0.05, first=3))
    assert [scheduler.group_schedule.peaks[number] for number in scheduler.trained] == [2e-2, 1e-3, 0.07, 0.05]


def test_group_added_after_a_resume_transition_is_on_the_new_schedule():
    optimizer = SGD(parameters(), lr=0.3)
    before = hf_sched.ScheduleLR(optimizer, CURVE)
    train(optimizer, [optimizer], before, range(6))
    for choice in ("continue", "rewarm 4"):
        resumed = SGD(parameters(), lr=0.2)
        scheduler = hf_sched.ScheduleLR(resumed, CURVE, on_resume=OnResume.parse(choice))
        scheduler.load_state_dict(before.state_dict())
        alone = [scheduler.group_schedule.at(step)[0] for step in STEPS]
        add(resumed, 0.07)
        state = pickle.loads(pickle.dumps(scheduler.state_dict()))
        rates = train(resumed, [resumed], scheduler, range(14))
        np.testing.assert_array_equal(rates.T, [alone[6:], planned(0.07)[6:, 0]])
        again = SGD(parameters(), lr=0.2)
        add(again, 0.07)
        scheduler = hf_sched.ScheduleLR(again, CURVE, on_resume="keep")
        scheduler.load_state_dict(state)
        np.testing.assert_array_equal(train(again, [again], scheduler, range(14)), rates)


def test_added_group_with_trust_ratios_is_split_by_parameter():
    optimizer = SGD(parameters(2), lr=0.3)
    scheduler = hf_sched.get_scheduler("lars_warmup", optimizer, 10, 20)
    optimizer.add_param_group({"params": parameters(2), "lr": 0.1})
    train(optimizer, [optimizer], scheduler, range(3))
    assert [len(group["params"]) for group in optimizer.param_groups] == [1] * 4
    assert scheduler.group_schedule.peaks == (0.3, 0.3, 0.1, 0.1)
    assert optimizer.param_groups[2]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"] / 3)


def test_wrong_or_removed_groups_are_errors():
    schedule = hf_sched.build("cosine_floor", num_training_steps=20, min_lr=0.1)
    optimizer = SGD(parameters(), lr=0.3)
    scheduler = hf_sched.ScheduleLR(optimizer, schedule)
    with pytest.raises(ValueError, match=r"parameter group 1: `min_lr` must be at most the peak learning rate 0.07"):
        add(optimizer, 0.07)
    with pytest.raises(ValueError, match="parameter group 1: `min_lr` must be at most the peak"):
        scheduler.step()
    optimizer.param_groups.clear()
    with pytest.raises(ValueError, match="1 of the optimizer's 1 parameter groups were removed"):
        scheduler.step()


@pytest.mark.parametrize("name", ["cosine_floor", "wsd", "lars_warmup"])
def test_group_with_peak_0_is_exempt_from_min_lr_and_stays_at_0(name):
    optimizer = SGD([{"params": parameters(), "lr": peak} for peak in (0.0, 0.3)])
    after = {"after": "cosine_floor", "after_kwargs": {"min_lr": 0.1}} if name == "lars_warmup" else {"min_lr": 0.1}
    scheduler = hf_sched.get_scheduler(name, optimizer, 4, 20, after)
    used = train(optimizer, [optimizer], scheduler)
    assert (used[:, 0] == 0).all()
    assert used[-1, 1] == 0.1
    again = hf_sched.get_scheduler(name, optimizer, 4, 20, after)
    again.load_state_dict(scheduler.state_dict())
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.1]
