"""Real Trainers that resume under another schedule: rejected by default, exact from the first step with `on_resume`."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

import hf_sched
from hf_sched.scheduler.builtin_resume import check_next_load
from tests.helpers.trainer import (
    BUILTIN,
    OURS,
    PEAK,
    STEPS,
    WARMUP,
    Recorder,
    builtin_cosine,
    cosine_floor,
    logged,
    make,
    train,
)

AT = 6  # the step of the checkpoint


@pytest.fixture(scope="module")
def checkpoint(model_path, tmp_path_factory):
    """By name: a checkpoint of one of our schedules, one of a built-in one, and one of weights alone."""
    folder = tmp_path_factory.mktemp("runs")
    saving = {"save_strategy": "steps", "save_steps": 2}
    train(model_path, folder / "ours", **saving, **OURS)
    train(model_path, folder / "builtin", **saving, **BUILTIN)
    train(model_path, folder / "weights", **saving, **OURS, save_only_model=True)
    return {name: str(folder / name / f"checkpoint-{AT}") for name in ("ours", "builtin", "weights")}


def linear(k, steps=STEPS, warmup=WARMUP):
    return PEAK * (k + 1) / warmup if k < warmup else PEAK * (steps - 1 - k) / (steps - warmup)


CHANGES = {
    "learning rate halved": ({"learning_rate": PEAK / 2}, lambda k: cosine_floor(k, peak=PEAK / 2)),
    "longer": ({"max_steps": 18}, lambda k: cosine_floor(k, steps=18)),
    "another schedule": ({"lr_scheduler_type": "linear_with_warmup"}, linear),
}


def expected(choice, old, new, steps):
    """The learning rates after the resume."""
    left = range(AT, steps)
    if choice == "keep":
        return [old(k) for k in left]
    if choice == "replace":
        return [new(k) for k in left]
    if choice == "continue":  # the new curve, scaled to start at the current rate
        end = new(steps - 1)
        return [end + (old(AT) - end) * (new(k) - end) / (new(AT) - end) for k in left]
    shares = [min((k - AT + 1) / 3, 1) for k in left]
    return [old(AT) * (1 - share) + new(k) * share for k, share in zip(left, shares, strict=True)]


def resume(model_path, folder, checkpoint, choice=None, **given):
    """The learning rates of group 0 after the resume; the Trainer logs the same ones."""
    recorder = Recorder()
    kwargs = {**given.pop("lr_scheduler_kwargs", {}), **({"on_resume": choice} if choice else {})}
    try:
        trainer, used = train(
            model_path, folder, resume=checkpoint, recorder=recorder, lr_scheduler_kwargs=kwargs, **given
        )
    except ValueError:
        assert recorder.used == []  # rejected before the first step
        raise
    assert logged(trainer, "learning_rate")[AT:] == used[:, 0].tolist()
    return used[:, 0]


def test_a_change_is_rejected_before_any_step(model_path, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=rf"checkpoint, at step {AT}, was trained under another schedule"):
        resume(model_path, tmp_path, checkpoint["ours"], **OURS, learning_rate=PEAK / 2)


@pytest.mark.parametrize("choice", ["keep", "replace", "continue", "rewarm 3"])
@pytest.mark.parametrize("change", CHANGES)
def test_on_resume_is_exact_from_the_first_step(model_path, checkpoint, tmp_path, change, choice):
    given, new = CHANGES[change]
    used = resume(model_path, tmp_path, checkpoint["ours"], choice, **{**OURS, **given})
    steps = given.get("max_steps", STEPS)
    np.testing.assert_allclose(used, expected(choice, cosine_floor, new, steps), rtol=1e-12, atol=1e-18)


def test_a_duration_in_epochs_uses_the_epochs_of_the_trainer(model_path, checkpoint, tmp_path):
    # 64 rows are 16 steps per epoch.
    used = resume(model_path, tmp_path, checkpoint["ours"], "rewarm 0.1875ep", **OURS, learning_rate=PEAK / 2)
    new = expected("rewarm 3", cosine_floor, lambda k: cosine_floor(k, peak=PEAK / 2), STEPS)
    np.testing.assert_allclose(used, new, rtol=1e-12)


def test_from_a_builtin_schedule_to_ours_is_rejected(model_path, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"a schedule outside hf_sched +cosine_floor\n"):
        resume(model_path, tmp_path, checkpoint["builtin"], **OURS)
    with pytest.raises(ValueError, match="`on_resume` cannot be 'keep': the checkpoint does not hold the curve"):
        resume(model_path, tmp_path, checkpoint["builtin"], "keep", **OURS)


@pytest.mark.parametrize("choice", ["replace", "continue", "rewarm 3"])
def test_from_a_builtin_schedule_to_ours_with_on_resume(model_path, checkpoint, tmp_path, choice):
    used = resume(model_path, tmp_path, checkpoint["builtin"], choice, **OURS)
    np.testing.assert_allclose(used, expected(choice, builtin_cosine, cosine_floor, STEPS), rtol=1e-12)


@pytest.mark.parametrize("choice", [None, "continue"])
def test_from_ours_to_a_builtin_schedule_is_rejected(model_path, checkpoint, tmp_path, choice):
    rates = rf"`keep` \(next learning rate {cosine_floor(AT):.6g}\) .*`replace` \(next .* {builtin_cosine(AT):.6g}\)"
    with pytest.raises(ValueError, match=rf"cosine_floor of hf_sched, not cosine of transformers.*{rates}"):
        resume(model_path, tmp_path, checkpoint["ours"], choice, **BUILTIN)


@pytest.mark.parametrize(("choice", "curve"), [("keep", cosine_floor), ("replace", builtin_cosine)])
def test_from_ours_to_a_builtin_schedule_with_on_resume(model_path, checkpoint, tmp_path, choice, curve):
    used = resume(model_path, tmp_path, checkpoint["ours"], choice, **BUILTIN)
    np.testing.assert_allclose(used, [curve(k) for k in range(AT, STEPS)], rtol=1e-12)


def test_from_ours_to_a_builtin_schedule_with_on_resume_in_its_text(model_path, checkpoint, tmp_path):
    used = resume(model_path, tmp_path, checkpoint["ours"], lr_scheduler_type="cosine:num_cycles=0.5,on_resume=replace")
    np.testing.assert_allclose(used, [builtin_cosine(k) for k in range(AT, STEPS)], rtol=1e-12)


def test_a_builtin_schedule_stays_transformers_own(model_path, checkpoint, tmp_path):
    created, _ = make(model_path, tmp_path, **BUILTIN)
    created.create_optimizer_and_scheduler(STEPS)
    assert type(pickle.loads(pickle.dumps(created.lr_scheduler))) is torch.optim.lr_scheduler.LambdaLR
    check_next_load(created.lr_scheduler, "cosine", None)  # a checkpoint of weights alone then loads no state
    assert type(pickle.loads(pickle.dumps(created.lr_scheduler))) is torch.optim.lr_scheduler.LambdaLR
    saving = {"save_strategy": "steps", "save_steps": 2}
    for folder, start in ((None, 0), (checkpoint["builtin"], AT)):
        trainer, used = train(model_path, tmp_path, resume=folder, **BUILTIN, **saving)
        np.testing.assert_allclose(used[:, 0], [builtin_cosine(k) for k in range(start, STEPS)], rtol=1e-12)
        assert type(trainer.lr_scheduler) is torch.optim.lr_scheduler.LambdaLR
    state = torch.load(tmp_path / "checkpoint-10" / "scheduler.pt", weights_only=True)
    assert set(state) == set(torch.load(f"{checkpoint['builtin']}/scheduler.pt", weights_only=True))


def test_a_checkpoint_without_scheduler_state_is_rejected(model_path, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=rf"continues at step {AT}, but .* start again .*`save_only_model: true`"):
        resume(model_path, tmp_path, checkpoint["weights"], **OURS)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", "half", "list", "keys", "curve"])
@pytest.mark.parametrize("name", [OURS, BUILTIN], ids=["ours", "builtin"])
def test_damaged_scheduler_state_is_one_line(model_path, checkpoint, tmp_path, content, name):
    folder = tmp_path / f"checkpoint-{AT}"
    shutil.copytree(checkpoint["ours"], folder)
    file = folder / "scheduler.pt"
    state = torch.load(file, weights_only=True)
    damaged = {"list": [1], "keys": {"schedule": "hold 12"}, "curve": {**state, "schedule": "hold 12 |"}}
    if content in damaged:
        torch.save(damaged[content], file)
    else:
        file.write_bytes(file.read_bytes()[:400] if content == "half" else content)
    with pytest.raises(ValueError, match=r"damaged .*resume from another checkpoint$") as caught:
        resume(model_path, tmp_path, True, **name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"damaged .*resume from another checkpoint$"):
        hf_sched.anneal_from(folder)


@pytest.mark.parametrize("choice", ["replace", "continue", "rewarm 3", "keep"])
def test_a_second_resume_continues_exactly_with_the_new_peaks(model_path, checkpoint, tmp_path, choice):
    given = {**OURS, "learning_rate": PEAK / 2, "lr_scheduler_kwargs": {"on_resume": choice}, "save_steps": 8}
    peak = PEAK if choice == "keep" else PEAK / 2
    trainer, used = train(model_path, tmp_path, resume=checkpoint["ours"], save_strategy="steps", **given)
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {peak}
    saved = torch.load(tmp_path / "checkpoint-8" / "optimizer.pt", weights_only=True)
    assert {group["initial_lr"] for group in saved["param_groups"]} == {peak}
    _, again = train(model_path, tmp_path / "2", resume=str(tmp_path / "checkpoint-8"), **given)
    np.testing.assert_array_equal(again, used[8 - AT :])


@pytest.mark.parametrize("given", [OURS, BUILTIN], ids=["ours", "builtin"])
def test_keep_in_a_longer_run_warns_once_that_the_curve_has_ended(model_path, checkpoint, tmp_path, given):
    with pytest.warns(UserWarning, match="stepped beyond its 12 steps.*`on_resume: keep` continues") as warned:
        resume(model_path, tmp_path, checkpoint["ours"], "keep", **given, max_steps=STEPS + 6)
    assert sum("stepped beyond" in str(one.message) for one in warned) == 1


@pytest.mark.parametrize("name", ["cosine_floor", "cosine"])
def test_an_invalid_on_resume_is_rejected_with_the_arguments(tmp_path, name):
    for given in (
        {"lr_scheduler_type": name, "lr_scheduler_kwargs": {"on_resume": "rewam"}},
        {"lr_scheduler_type": f"{name}:on_resume=rewam"},
    ):
        with pytest.raises(ValueError, match="`on_resume` must be"):
            TrainingArguments(str(tmp_path), **given)
