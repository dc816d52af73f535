"""The learning-rate log: the rates that the steps used, in every tracker and in a file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import transformers.integrations.integration_utils as integrations
from transformers import TrainerCallback

import hf_sched
from hf_sched._run_files import LEARNING_RATES, read_learning_rates
from hf_sched.audit import audit
from tests.helpers import trainer as helper
from tests.helpers.trainer import OURS, PEAK, STEPS, WARMUP, make, two_groups

CURVE = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP).curve(peak=PEAK)


def train(model_path, folder, *, callbacks=(), **given):
    return helper.train(model_path, folder, callbacks=[*callbacks, hf_sched.LearningRateLog()], **{**OURS, **given})


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


class Meddler(TrainerCallback):
    """Sets another rate after the step."""

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        optimizer.param_groups[0]["lr"] = 1.0


@pytest.mark.parametrize(
    ("optimizers", "names"),
    [(None, ["group_0"]), (two_groups, ["group_0", "group_1"]), (by_name, ["body", "layer_norms"])],
    ids=["one peak", "numbered", "named"],
)
@pytest.mark.parametrize(("scheduler", "callbacks"), [("cosine_floor", []), ("cosine", [Meddler()])])
def test_each_kind_of_groups_has_an_entry_with_the_used_rate(
    model_path, tmp_path, optimizers, names, scheduler, callbacks
):
    trainer, used = train(model_path, tmp_path, optimizers=optimizers, lr_scheduler_type=scheduler, callbacks=callbacks)
    assert used.shape == (STEPS, 2)  # by default with and without weight decay
    assert (used[1:, 0] != used[1:, 1]).all() == (len(names) == 2)
    keys = {key for row in trainer.state.log_history for key in row if key.startswith("learning_rate/")}
    assert keys == {f"learning_rate/{planned}{name}" for planned in ("", "planned_") for name in names}
    for name, rates in zip(names, used.T, strict=False):
        assert logged(trainer, f"learning_rate/{name}") == dict(enumerate(rates, 1))
        assert logged(trainer, f"learning_rate/planned_{name}") == dict(enumerate(rates, 1))


def test_planned_rate_differs_where_another_component_sets_the_rate(model_path, tmp_path, monkeypatch):
    class HalveOnce(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            if state.global_step == 4:
                for group in optimizer.param_groups:
                    group["lr"] /= 2

    monkeypatch.setenv("HF_SCHED_GUARD", "off")
    trainer, _ = train(model_path, tmp_path, callbacks=[HalveOnce()])
    planned, actual = (logged(trainer, f"learning_rate/{name}") for name in ("planned_group_0", "group_0"))
    assert planned == dict(enumerate(CURVE, 1))
    assert actual == {**planned, 5: planned[5] / 2}


def test_log_counts_down_the_steps_of_each_phase(model_path, tmp_path):
    phases = {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold 4 | decay"}}
    trainer, _ = train(model_path, tmp_path, **phases)
    assert logged(trainer, "phase_steps_left/warmup") == {1: 2, 2: 1, 3: 0}
    assert logged(trainer, "phase_steps_left/hold") == {4: 3, 5: 2, 6: 1, 7: 0}
    assert logged(trainer, "phase_steps_left/decay") == {8: 4, 9: 3, 10: 2, 11: 1, 12: 0}


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


@pytest.mark.parametrize("tensors", [False, True])
def test_new_file_has_every_step_and_the_plan(model_path, tmp_path, tensors):
    train(model_path, tmp_path, max_steps=6)
    _, used = train(model_path, tmp_path, logging_steps=5, optimizers=partial(two_groups, tensors=tensors))
    assert in_file(tmp_path) == dict(enumerate(used.tolist(), 1))
    (session,) = [row["session"] for row in read_learning_rates(tmp_path / LEARNING_RATES) if "session" in row]
    assert session["kinds"] == {"group_0": [0], "group_1": [1]}
    assert session["peaks"] == pytest.approx([PEAK, PEAK / 16], rel=1e-7)
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


DAMAGE = [b"\xff\xfe\x00\n", b'{"step": "5", "rates": []}\n[1]\n{"session": null}\n7\n', b"[" * 10**5]


@pytest.mark.parametrize("damage", DAMAGE, ids=["bytes", "other values", "nested"])
@pytest.mark.parametrize("at_the_start", [True, False])
def test_resume_survives_a_damaged_file(model_path, tmp_path, damage, at_the_start):
    saving = {"save_strategy": "steps", "save_steps": 5}
    train(model_path, tmp_path, **saving)
    file = tmp_path / LEARNING_RATES
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(damage if at_the_start else b"".join([*lines[:3], damage, b"\n", *lines[3:]]))
    train(model_path, tmp_path, resume=str(tmp_path / "checkpoint-5"), **saving)
    first = 6 if at_the_start else 1
    assert in_file(tmp_path) == {step: [rate] for step, rate in enumerate(CURVE, 1) if step >= first}
    assert audit(tmp_path).ok


class Break(TrainerCallback):
    """Makes the file unwritable after a step."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            file = Path(args.output_dir, LEARNING_RATES)
            file.unlink()
            file.symlink_to("/dev/full")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has such a file")
def test_training_continues_on_a_full_disk(model_path, tmp_path, warnings_logged):
    trainer, used = train(model_path, tmp_path, callbacks=[Break()])
    assert len(used) == trainer.state.global_step == STEPS
    (message,) = warnings_logged()
    assert message.startswith(f"{tmp_path / LEARNING_RATES} cannot be read or written: [Errno 28] No space left")
    assert list(logged(trainer, "learning_rate/group_0").values()) == CURVE.tolist()


def test_training_continues_without_a_folder(model_path, tmp_path, warnings_logged):
    callbacks = [hf_sched.LearningRateLog(), hf_sched.LiveControl()]
    trainer, recorder = make(model_path, tmp_path / "out", callbacks=callbacks, **OURS)
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_text("a file")
    trainer.train()
    assert len(recorder.used) == STEPS
    assert all("cannot be read or written" in message for message in warnings_logged())


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
