"""The guard makes sure that every optimizer that updates the model in a Trainer follows the schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers.trainer
from torch.optim import SGD, AdamW, Optimizer
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

import hf_sched
from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from hf_sched.audit import audit
from hf_sched.callbacks.guard import GUARD
from hf_sched.scheduler.schedule_lr import ScheduleLR
from tests.helpers.trainer import OURS, PEAK, STEPS, WARMUP, logged, make

CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP)


def planned(*peaks: float) -> np.ndarray:
    return np.array([CURVE.curve(peak=peak) for peak in peaks]).T


def make_trainer(model_path, folder, optimizers, *callbacks, **given):
    """A Trainer with a learning-rate log; `optimizers` returns an optimizer for the model."""
    callbacks = [*callbacks, hf_sched.LearningRateLog()]
    given = {**OURS, "disable_tqdm": True, **given}
    return make(model_path, folder, optimizers=lambda model: (optimizers(model), None), callbacks=callbacks, **given)


def in_file(folder) -> np.ndarray:
    return np.array([row["rates"] for row in read_learning_rates(folder / LEARNING_RATES) if "step" in row])


def assert_passes_audit(folder) -> None:
    report = audit(folder)
    assert report.ok and report.deviation == 0, report.lines


def record_rates(optimizer: Optimizer) -> list[float]:
    """The rates of the first group at each step of an optimizer."""
    used: list[float] = []
    optimizer.register_step_pre_hook(lambda one, *_: used.append(one.param_groups[0]["lr"]))
    return used


def test_layer_wise_optimizers_train_on_the_curve(model_path, tmp_path):
    inner: dict[torch.nn.Parameter, Optimizer] = {}
    used: dict[torch.nn.Parameter, list[float]] = {}

    def step(parameter):
        inner[parameter].step()
        inner[parameter].zero_grad()

    def layer_wise(model):  # as transformers sets up GaLore and APOLLO
        inner.update({p: AdamW([p], lr=PEAK if p.dim() > 1 else PEAK / 16) for p in model.parameters()})
        for parameter in inner:
            parameter.register_post_accumulate_grad_hook(step)
        used.update({p: record_rates(one) for p, one in inner.items()})
        return LayerWiseDummyOptimizer(inner, lr=PEAK)

    trainer, _ = make_trainer(model_path, tmp_path, layer_wise)
    trainer.train()
    for parameter, rates in used.items():
        assert rates == CURVE.curve(peak=PEAK if parameter.dim() > 1 else PEAK / 16).tolist()
    assert logged(trainer, "learning_rate") == CURVE.curve(peak=PEAK).tolist()
    np.testing.assert_array_equal(in_file(tmp_path), planned(PEAK, PEAK / 16))
    assert_passes_audit(tmp_path)


def test_transformers_makes_one_scheduler_for_layer_wise_optimizers():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = LayerWiseDummyOptimizer({parameter: SGD([parameter], lr=0.3)}, lr=0.1)
    scheduler = transformers.trainer.get_scheduler("cosine_floor", optimizer, WARMUP, STEPS)
    assert isinstance(scheduler, ScheduleLR)
    assert scheduler.group_schedule.peaks == (0.3, 0.1)


class Two(Optimizer):
    """Trains halves of a model with an optimizer each; `hide` keeps them where nothing finds them."""

    def __init__(self, model, hide=False):
        halves = [*model.parameters()][:3], [*model.parameters()][3:]
        super().__init__(model.parameters(), {"lr": 1.0})
        held = [SGD(halves[0], lr=2e-2), AdamW(halves[1], lr=1e-3)]
        self.held, self.run = (None if hide else held), lambda: [one.step() for one in held]

    def step(self, closure=None):
        self.run()


def test_a_list_of_optimizers_trains_on_the_curve_and_is_logged(model_path, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 5}
    trainer, _ = make_trainer(model_path, tmp_path, Two, **saving)
    used = [record_rates(one) for one in trainer.optimizer.held]
    trainer.train()
    np.testing.assert_array_equal(np.array(used).T, planned(2e-2, 1e-3))
    np.testing.assert_array_equal(in_file(tmp_path), planned(2e-2, 1e-3))
    assert logged(trainer, "learning_rate") == CURVE.curve(peak=2e-2).tolist()
    assert_passes_audit(tmp_path)
    trainer, _ = make_trainer(model_path, tmp_path, Two, **saving)
    used = [record_rates(one) for one in trainer.optimizer.held]
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    np.testing.assert_array_equal(np.array(used).T, planned(2e-2, 1e-3)[5:])
    assert_passes_audit(tmp_path)


def test_log_shows_that_a_builtin_schedule_does_not_reach_inner_optimizers(model_path, tmp_path):
    trainer, _ = make_trainer(model_path, tmp_path, Two, lr_scheduler_type="cosine")
    trainer.train()
    np.testing.assert_array_equal(in_file(tmp_path), np.full((STEPS, 2), (2e-2, 1e-3)))
    assert not audit(tmp_path).ok


class Sneaky(AdamW):
    """Updates one more parameter than its groups hold."""

    def __init__(self, model):
        *others, self.last = model.parameters()
        super().__init__(others, lr=PEAK)

    def step(self, closure=None):
        super().step()
        if self.last.grad is not None:
            self.last.data -= 1e-3 * self.last.grad


def stepped_by_hooks(model):
    """torch's tutorial: an optimizer for each parameter, which a hook of the parameter steps."""
    of_parameter = {p: SGD([p], lr=1e-3) for p in model.parameters()}
    for parameter in of_parameter:
        parameter.register_post_accumulate_grad_hook(lambda p: of_parameter[p].step())
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


OUT_OF_REACH = {
    "hidden": (
        lambda model: Two(model, hide=True),
        r"SGD is about to update .* learning rate of 0.02, which .* not set",
    ),
    "stepped by hooks": (stepped_by_hooks, r"11 trainable parameters .* are in no parameter group .* SGD may update"),
    "without an optimizer": (
        Sneaky,
        r"1 trainable parameters \(model.norm.weight\) are in no .* Sneaky may update them",
    ),
}


@pytest.mark.parametrize("how", OUT_OF_REACH)
def test_updates_out_of_reach_are_refused_before_the_first_step(
    model_path, tmp_path, how, monkeypatch, warnings_logged
):
    optimizers, message = OUT_OF_REACH[how]
    trainer, _ = make_trainer(model_path, tmp_path, optimizers)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0
    assert all(map(torch.equal, before, trainer.model.parameters()))
    optimizer = SGD(trainer.model.parameters(), lr=0.1)
    optimizer.step()  # the guard has stopped looking
    monkeypatch.setenv(GUARD, "warn")
    trainer, _ = make_trainer(model_path, tmp_path, optimizers)
    trainer.train()
    assert trainer.state.global_step == STEPS
    kinds = [message.split(" is about to ")[-1].split(" are in no ")[-1] for message in warnings_logged()]
    assert len(kinds) == len(set(kinds)) == (2 if how == "stepped by hooks" else 1)


def test_a_subset_of_the_parameters_may_be_trained(model_path, tmp_path, warnings_logged):
    def some(model):
        return AdamW([*model.parameters()][:-1], lr=PEAK)

    trainer, _ = make_trainer(model_path, tmp_path, some)
    trainer.train()
    (message,) = warnings_logged()
    assert message.startswith("1 trainable parameters (model.norm.weight) are in no parameter group of the optimizer")
    trainer, _ = make_trainer(model_path, tmp_path, Sneaky)
    trainer.model.model.norm.weight.requires_grad_(False)
    trainer.train()
    assert len(warnings_logged()) == 1


class Masters(Optimizer):
    """Trains copies of the parameters, as optimizers that keep them in main memory do."""

    def __init__(self, model):
        self.pairs = [(p, p.detach().clone().requires_grad_()) for p in model.parameters()]
        self.inner = AdamW([copy for _, copy in self.pairs], lr=PEAK)
        super().__init__(self.inner.param_groups, {})

    def step(self, closure=None):
        for parameter, copied in self.pairs:
            copied.grad = parameter.grad
        self.inner.step()
        for parameter, copied in self.pairs:
            parameter.data.copy_(copied.data)


def test_copies_of_parameters_and_optimizers_of_other_models_are_left_alone(model_path, tmp_path, warnings_logged):
    class Other(TrainerCallback):
        optimizer = SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0)

        def on_step_end(self, args, state, control, **kwargs):
            self.optimizer.step()

    trainer, _ = make_trainer(model_path, tmp_path, Masters, Other())
    used = record_rates(trainer.optimizer.inner)
    trainer.train()
    assert used == CURVE.curve(peak=PEAK).tolist()
    assert warnings_logged() == []


class Unfreeze(TrainerCallback):
    """Adds the last parameter to the optimizer after 3 steps."""

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        if state.global_step == 3:
            optimizer.add_param_group({"params": [*model.parameters()][-1:], "lr": PEAK / 16})


def without_last(model):
    return SGD([*model.parameters()][:-1], lr=PEAK)


def test_group_added_in_training_follows_the_schedule_and_survives_a_resume(model_path, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 5}
    trainer, recorder = make_trainer(model_path, tmp_path, without_last, Unfreeze(), **saving)
    trainer.train()
    both = planned(PEAK, PEAK / 16)
    assert recorder.used == [*both[:3, :1].tolist(), *both[3:].tolist()]
    assert logged(trainer, "learning_rate/group_1") == both[3:, 1].tolist()
    rows = read_learning_rates(tmp_path / LEARNING_RATES)
    assert [row["session"]["peaks"] for row in rows if "session" in row] == [[PEAK], [PEAK, PEAK / 16]]
    assert_passes_audit(tmp_path)

    def with_last(model):
        *others, last = model.parameters()
        return SGD([{"params": others}, {"params": [last], "lr": PEAK / 16}], lr=PEAK)

    trainer, recorder = make_trainer(model_path, tmp_path, with_last, Unfreeze(), **saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert recorder.used == both[5:].tolist()
    assert_passes_audit(tmp_path)
    assert audit(tmp_path).notes == ["resumed at step 5"]


def test_log_has_groups_added_under_another_scheduler(model_path, tmp_path):
    def constant(model):
        optimizer = without_last(model)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    callbacks = [Unfreeze(), hf_sched.LearningRateLog()]
    make(model_path, tmp_path, optimizers=constant, callbacks=callbacks, lr_scheduler_type="constant")[0].train()
    rates = [row["rates"] for row in read_learning_rates(tmp_path / LEARNING_RATES) if "step" in row]
    assert rates == [[PEAK]] * 3 + [[PEAK, PEAK / 16]] * 9
