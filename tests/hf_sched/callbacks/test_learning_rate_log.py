"""The learning-rate log: the rates that the steps used, in every tracker and in a file."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
import transformers.integrations.integration_utils as integrations
from transformers import Trainer, TrainerCallback

import hf_sched
from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from tests.helpers.trainer import PEAK, STEPS, WARMUP, make, two_groups

OURS = {"lr_scheduler_type": "cosine_floor"}
CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP).curve(peak=PEAK)


def train(model_path, folder, *, resume=None, callbacks=(), log=None, **given):
    trainer, recorder = make(
        model_path, folder, callbacks=[*callbacks, log or hf_sched.LearningRateLog()], **{**OURS, **given}
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer, np.array(recorder.used)


def logged(trainer, key):
    return {row["step"]: row[key] for row in trainer.state.log_history if key in row}


def in_file(folder):
    return {row["step"]: row["rates"] for row in read_learning_rates(folder / LEARNING_RATES) if "step" in row}


def by_name(model):
    optimizer, _ = two_groups(model)
    for group, name in zip(optimizer.param_groups, ("body", "layer/norms"), strict=True):
        group["name"] = name
    return optimizer, None


class Tracker(TrainerCallback):
    """A tracker like wandb or tensorboard."""

    got: ClassVar[list[tuple[int, dict[str, float]]]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.got.append((state.global_step, dict(logs)))


def test_groups_with_one_peak_share_an_entry(model_path, tmp_path):
    trainer, used = train(model_path, tmp_path)
    assert used.shape == (STEPS, 2)  # with and without weight decay
    assert logged(trainer, "learning_rate/group_0") == dict(enumerate(CURVE, 1)) == logged(trainer, "learning_rate")
    keys = {key for row in trainer.state.log_history for key in row if key.startswith("learning_rate/")}
    assert keys == {"learning_rate/group_0"}


@pytest.mark.parametrize(
    ("optimizers", "names"),
    [(two_groups, ["group_0", "group_1"]), (by_name, ["body", "layer_norms"])],
    ids=["numbered", "named"],
)
@pytest.mark.parametrize("scheduler", ["cosine_floor", "cosine"])
def test_each_kind_of_groups_has_an_entry(model_path, tmp_path, optimizers, names, scheduler):
    trainer, used = train(model_path, tmp_path, optimizers=optimizers, lr_scheduler_type=scheduler)
    assert used.shape == (STEPS, 2)
    assert (used[1:, 0] != used[1:, 1]).all()
    for name, rates in zip(names, used.T, strict=True):
        assert logged(trainer, f"learning_rate/{name}") == dict(enumerate(rates, 1))


def test_trackers_get_the_rates_with_the_loss_of_the_same_step(model_path, tmp_path, monkeypatch):
    monkeypatch.setitem(integrations.INTEGRATION_TO_CALLBACK, "tracker", Tracker)
    monkeypatch.setattr(Tracker, "got", [])
    given = {"optimizers": two_groups, "gradient_accumulation_steps": 2, "logging_steps": 5, "logging_first_step": True}
    _, used = train(model_path, tmp_path, report_to="tracker", **given)
    of_training = [(step, logs) for step, logs in Tracker.got if "loss" in logs]
    assert [step for step, _ in of_training] == [1, 5, 10]
    for step, logs in of_training:
        assert [logs["learning_rate/group_0"], logs["learning_rate/group_1"]] == used[step - 1].tolist()
    # The summary at the end belongs to no step.
    assert not any("learning_rate/group_0" in logs for _, logs in Tracker.got if "loss" not in logs)


def test_tensorboard_shows_the_rates(model_path, tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    _, used = train(model_path, tmp_path / "run", report_to="tensorboard", optimizers=two_groups)
    (folder,) = {path.parent for path in tmp_path.rglob("*tfevents*")}
    shown = events.EventAccumulator(str(folder)).Reload()
    for number in (0, 1):
        scalars = shown.Scalars(f"train/learning_rate/group_{number}")
        assert [scalar.step for scalar in scalars] == list(range(1, STEPS + 1))
        np.testing.assert_allclose([scalar.value for scalar in scalars], used[:, number], rtol=1e-6)  # of 32 bits


def test_trust_ratios_are_logged_as_used(model_path, tmp_path):
    # A hook of the optimizer sets them after all callbacks.
    used = []

    class Watched(Trainer):
        def create_optimizer(self, *args, **kwargs):
            optimizer = super().create_optimizer(*args, **kwargs)
            optimizer.register_step_post_hook(lambda made, *_: used.append([g["lr"] for g in made.param_groups]))
            return optimizer

    given = {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {"warmup": 4, "after": "wsd"}}
    trainer, _ = train(model_path, tmp_path, cls=Watched, warmup_steps=0, **given)
    used = np.array(used)
    assert used.shape[0] == STEPS
    assert used.shape[1] > 4
    assert (used[:3].min(axis=1) < used[:3].max(axis=1)).all()
    assert logged(trainer, "learning_rate/group_0") == dict(enumerate(used.max(axis=1), 1))
    assert logged(trainer, "learning_rate/group_0_min") == dict(enumerate(used[:3].min(axis=1), 1))
    assert list(in_file(tmp_path).values())[:3] == [[[min(rates), max(rates)]] for rates in used[:3].tolist()]


def test_many_kinds_of_groups_are_logged_as_minimum_and_maximum(model_path, tmp_path):
    def many(model):
        groups = [{"params": [p], "lr": PEAK / (n + 1)} for n, p in enumerate(model.parameters())]
        empty = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": PEAK / (n + 100)} for n in range(20)]
        return torch.optim.AdamW([*groups, *empty]), None

    trainer, used = train(model_path, tmp_path, optimizers=many)
    assert {key for key in trainer.state.log_history[0] if "learning_rate/" in key} == {
        "learning_rate/max",
        "learning_rate/min",
    }
    assert logged(trainer, "learning_rate/min") == dict(enumerate(used.min(axis=1), 1))
    assert list(in_file(tmp_path).values()) == used.tolist()


class Meddler(TrainerCallback):
    """Sets another rate after the step."""

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        optimizer.param_groups[0]["lr"] = 1.0


def test_changes_after_the_step_are_not_logged(model_path, tmp_path):
    trainer, used = train(model_path, tmp_path, callbacks=[Meddler()], lr_scheduler_type="linear")
    assert logged(trainer, "learning_rate/group_0") == dict(enumerate(used[:, 0], 1))
    assert used.max() < 1.0


def test_file_has_every_step_and_the_plan(model_path, tmp_path):
    _, used = train(model_path, tmp_path, logging_steps=5, optimizers=two_groups)
    assert in_file(tmp_path) == dict(enumerate(used.tolist(), 1))
    (session,) = [row["session"] for row in read_learning_rates(tmp_path / LEARNING_RATES) if "session" in row]
    assert session["kinds"] == {"group_0": [0], "group_1": [1]}
    assert session["peaks"] == [PEAK, PEAK / 16]
    assert (session["step"], session["num_training_steps"], session["num_warmup_steps"]) == (0, STEPS, WARMUP)
    assert session["group_schedule"]["schedule"].endswith("cosine; floor 0.1")


def test_resume_continues_the_file(model_path, tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 5}
    train(model_path, tmp_path, **saving)
    with (tmp_path / LEARNING_RATES).open("a") as file:
        file.write('{"step": 13, "ra')  # cut off by a kill
    _, used = train(model_path, tmp_path, resume=str(tmp_path / "checkpoint-5"), **saving)
    assert len(used) == STEPS - 5
    assert in_file(tmp_path) == {step: [rate] for step, rate in enumerate(CURVE, 1)}
    rows = read_learning_rates(tmp_path / LEARNING_RATES)
    assert len(rows) == STEPS + 2
    assert [row["session"]["step"] for row in rows if "session" in row] == [0, 5]


def test_new_run_starts_a_new_file(model_path, tmp_path):
    train(model_path, tmp_path)
    train(model_path, tmp_path, max_steps=6)
    assert list(in_file(tmp_path)) == [1, 2, 3, 4, 5, 6]
    assert len(read_learning_rates(tmp_path / LEARNING_RATES)) == 7


def test_file_has_the_steps_before_an_error(model_path, tmp_path):
    class Fail(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise RuntimeError("stop")

    trainer, _ = make(model_path, tmp_path, callbacks=[hf_sched.LearningRateLog(), Fail()], **OURS)
    with pytest.raises(RuntimeError, match="stop"):
        trainer.train()
    assert list(in_file(tmp_path)) == [1, 2, 3, 4]
    trainer.remove_callback(Fail)
    trainer.train()
    assert len(read_learning_rates(tmp_path / LEARNING_RATES)) == STEPS + 1


def test_every_step_false_writes_no_file(model_path, tmp_path):
    trainer, _ = train(model_path, tmp_path, log=hf_sched.LearningRateLog(every_step=False))
    assert not (tmp_path / LEARNING_RATES).exists()
    assert len(logged(trainer, "learning_rate/group_0")) == STEPS


def test_every_line_is_json_with_tensor_rates(model_path, tmp_path):
    train(model_path, tmp_path, optimizers=lambda model: two_groups(model, tensors=True))
    rows = [json.loads(line) for line in (tmp_path / LEARNING_RATES).read_text().splitlines()]
    assert len(rows) == STEPS + 1
