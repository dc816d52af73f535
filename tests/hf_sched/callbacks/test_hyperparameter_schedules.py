"""`HyperparameterSchedules` in real Trainers: exact values in every step, logged, guarded, audited, and resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import hf_sched
from hf_sched.audit import audit
from tests.helpers.trainer import BUILTIN, OURS, STEPS, logged, make

SCHEDULES = {
    "weight_decay": "hold 50% | decay to 0",
    "adam_beta2": {"schedule": "hold 25% at 0.999 | decay to 0.9", "absolute": True},
}
GIVEN = {**OURS, "weight_decay": 0.1, "optim": "adamw_torch"}
SAVING = {"save_strategy": "steps", "save_steps": 4}


def planned(text: str, configured: float) -> list[float]:
    return hf_sched.build(text, num_training_steps=STEPS).curve(peak=configured).tolist()


PLANNED = {
    "weight_decay": planned("hold 50% | decay to 0", 0.1),
    "adam_beta2": planned("hold 25% at 0.999 | decay to 0.9", 1.0),
}


class Used(TrainerCallback):
    """Records the groups' values just before the optimizer uses them; may change the weight decay itself."""

    def __init__(self, changes_at: int | None = None) -> None:
        self.seen: list[tuple[list[float], list[float]]] = []
        self.changes_at = changes_at

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        if state.global_step == self.changes_at:
            optimizer.param_groups[0]["weight_decay"] = 0.05

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        groups = optimizer.param_groups
        self.seen.append(([g["weight_decay"] for g in groups], [g["betas"][1] for g in groups]))


def run(model_path, folder, schedules=SCHEDULES, *, resume=None, used=None, **given):
    used = used or Used()
    # The log comes first: it needs the plan when training begins.
    callbacks = [hf_sched.LearningRateLog(), hf_sched.HyperparameterSchedules(schedules), used]
    trainer, _ = make(model_path, folder, callbacks=callbacks, **{**GIVEN, **given})
    trainer.train(resume_from_checkpoint=resume)
    return trainer, used.seen


@pytest.mark.parametrize("schedule", [OURS, BUILTIN], ids=["ours", "built-in"])
def test_every_step_trains_at_the_scheduled_values(model_path, tmp_path, schedule):
    trainer, seen = run(model_path, tmp_path, **schedule)
    decays, betas = (np.array([one[which] for one in seen]) for which in (0, 1))
    assert decays[:, 0].tolist() == PLANNED["weight_decay"] and decays[-1, 0] == 0
    assert not decays[:, 1].any()  # the group that the Trainer does not decay
    assert betas[:, 0].tolist() == betas[:, 1].tolist() == PLANNED["adam_beta2"] and betas[-1, 0] == 0.9
    for name, values in PLANNED.items():
        assert logged(trainer, f"hyperparameter/{name}") == values
    found = audit(tmp_path)
    assert found.ok and [one.label for one in found.comparisons if one.is_hyperparameter] == [
        "hyperparameter/weight_decay",
        "hyperparameter/adam_beta2",
    ]


def test_resume_continues_exactly_and_rejects_other_schedules(model_path, tmp_path):
    trainer, seen = run(model_path, tmp_path, **SAVING)
    losses, checkpoint = logged(trainer, "loss"), str(tmp_path / "checkpoint-4")
    trainer, again = run(model_path, tmp_path, resume=checkpoint, **SAVING)
    assert again == seen[4:] and logged(trainer, "loss") == losses and audit(tmp_path).ok
    other = {**SCHEDULES, "weight_decay": "decay to 0.5"}
    with pytest.raises(hf_sched.ArgumentError, match=r"differ from those of the checkpoint, at step 4: .*`keep`"):
        run(model_path, tmp_path, other, resume=checkpoint, **SAVING)
    for choice, text in (("keep", "hold 50% | decay to 0"), ("replace", "decay to 0.5")):
        kwargs = {"lr_scheduler_kwargs": {"on_resume": choice}}
        _, again = run(model_path, tmp_path / choice, other, resume=checkpoint, **kwargs)
        assert [decay[0] for decay, _ in again] == planned(text, 0.1)[4:]


def test_guard_and_audit_find_a_value_that_another_callback_sets(model_path, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"optimizer step 5: `weight_decay` is 0.05, but its schedule has 0.1"):
        run(model_path, tmp_path / "error", used=Used(changes_at=5))
    monkeypatch.setenv("HF_SCHED_GUARD", "off")
    run(model_path, tmp_path / "off", used=Used(changes_at=5))
    (finding,) = audit(tmp_path / "off").findings
    assert finding.startswith("hyperparameter/weight_decay: off its schedule at 1 steps, the first of them step 6")


OPTIMIZERS = {
    "momentum": ("momentum", lambda model: torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9)),
    "adam_epsilon": ("eps", lambda model: torch.optim.AdamW(model.parameters(), 1e-2, eps=0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_and_epsilon_follow_a_schedule_that_rises(model_path, tmp_path, name):
    key, make_optimizer = OPTIMIZERS[name]
    used: list[float] = []

    class Values(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            used.append(optimizer.param_groups[0][key])

    text = "warmup 50% from 0.5 to 1 | hold"
    callbacks = [hf_sched.HyperparameterSchedules({name: text}), Values()]
    optimizers = lambda model: (make_optimizer(model), None)  # noqa: E731
    make(model_path, tmp_path, callbacks=callbacks, optimizers=optimizers, **OURS)[0].train()
    assert used == planned(text, 0.9)


WRONG = {
    "unknown": ({"wieght_decay": "hold"}, "is no hyperparameter with a schedule; did you mean 'weight_decay'"),
    "fixed": ({"temperature": "decay to 0.5"}, "cannot change during a run: TRL fixes it at the start"),
    "schedule": ({"weight_decay": "hodl"}, r"`schedules.weight_decay` has an unusable schedule: "),
    "missing key": ({"momentum": "decay"}, "has no effect: the optimizer has no `momentum`"),
    "missing attribute": ({"beta": "decay"}, "has no effect: Trainer has no `beta`"),
    "too high": ({"adam_beta2": {"schedule": "hold", "absolute": True}}, "must be below 1 at every step"),
    "zero": ({"weight_decay": "hold"}, "is a multiple of the configured `weight_decay`, which is 0"),
    "length": ({"adam_beta1": "hold 100 | decay"}, "but the run has 12"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_change_is_refused_before_the_first_step(model_path, tmp_path, case):
    schedules, message = WRONG[case]
    used = Used()
    with pytest.raises(hf_sched.ArgumentError, match=message):
        run(model_path, tmp_path, schedules, used=used, weight_decay=0.0)
    assert not used.seen
