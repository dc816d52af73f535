"""Live cooldown in real trainings: accepted and rejected requests, resumes, several groups, a gradient scaler."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import hf_sched
from hf_sched._run_files import (
    COOLDOWN_DONE,
    COOLDOWN_REJECTED,
    COOLDOWN_REQUEST,
    COOLDOWN_STATUS,
    LEARNING_RATES,
)
from hf_sched.audit import audit
from hf_sched.callbacks import live_cooldown
from hf_sched.callbacks.cooldown_request import Request, apply_request, decay_now, send_request
from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.schedules.schedule import Schedule
from tests.helpers.live_cooldown import COOLED, WSD, RequestAfter, curve, train, write_request
from tests.helpers.trainer import PEAK, UNFUSED, make, two_groups

SAVING = {"save_strategy": "steps", "save_steps": 4}
PLANNED = curve("warmup 5 | hold 25 | decay 10 1-sqrt")


@pytest.fixture(autouse=True)
def status_at_every_log(monkeypatch):
    monkeypatch.setattr(live_cooldown, "STATUS_INTERVAL", 0.0)


class SaveAfter(TrainerCallback):
    """Saves a checkpoint after a step, and may end the run there."""

    def __init__(self, step, stop=False):
        self.step, self.stop = step, stop

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save, control.should_training_stop = True, self.stop


def phases(text, **kwargs):
    """Arguments for a schedule made of phases."""
    return {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": text, **kwargs}, "warmup_steps": 0}


def passed_audit(folder):
    report = audit(folder)
    assert report.ok, report.lines
    assert report.deviation == 0
    return report


# Accepted requests.


@pytest.mark.parametrize(
    ("given", "request_", "text"),
    [
        ({}, Request(6), COOLED),
        ({}, Request("25%"), "warmup 5 | hold 10 | decay 5 1-sqrt"),  # of the 20 steps of the shortened run
        ({}, Request(6, "polynomial 2", 0.1), "warmup 5 | hold 10 | decay 6 polynomial 2; floor 0.1"),
        ({"logging_strategy": "epoch"}, Request(6), "warmup 5 | hold 11 | decay 6 1-sqrt"),
        (phases("hold at 0.5"), Request(6, "geometric", 0.1), "hold 15 at 0.5 | decay 6 geometric; floor 0.1"),
        (
            {"lr_scheduler_kwargs": {"decay": 10, "floor_ratio": 0.2}, "gradient_accumulation_steps": 3},
            Request(1),
            "warmup 5 | hold 10 | decay 1; floor 0.2",
        ),
    ],
)
def test_run_follows_the_cooldown_and_ends_with_it(model_path, tmp_path, given, request_, text):
    trainer, used = train(model_path, tmp_path, RequestAfter(request=request_), **{**SAVING, **given})
    end = Schedule.parse(text).num_training_steps
    assert (trainer.state.global_step, trainer.state.max_steps) == (end, end)
    np.testing.assert_array_equal(used[:, 0], curve(text))
    assert (tmp_path / f"checkpoint-{end}").is_dir()
    assert {path.name for path in tmp_path.glob("*.json")} == {COOLDOWN_DONE, COOLDOWN_STATUS, "trainer_state.json"}
    assert passed_audit(tmp_path).record.steps_made == end


def test_each_group_cools_down_from_its_own_peak(model_path, tmp_path):
    request = Request(6, min_lr=1e-4)
    _, used = train(model_path, tmp_path, RequestAfter(request=request), optimizers=two_groups)
    for rates, peak in zip(used.T, (PEAK, PEAK / 16), strict=True):
        np.testing.assert_array_equal(rates, curve(f"{COOLED}; min_lr 1e-4", peak))
    assert len(passed_audit(tmp_path).comparisons) == 2


OWN, VALUES = "decay cosine; floor 0.25", "hold 50% | decay cosine to 0.1"


def with_own_schedule(model):
    """Two groups, of which the second follows its own schedule."""
    optimizer, _ = two_groups(model)
    optimizer.param_groups[1]["lr_schedule"] = OWN
    return optimizer, None


@pytest.mark.parametrize("resumed_from", [None, 15, 16])
def test_own_schedules_and_hyperparameters_end_with_the_cooldown(model_path, tmp_path, resumed_from):
    given = {"optimizers": with_own_schedule, "weight_decay": 0.2, **SAVING}

    def run(*callbacks, **more):
        values = hf_sched.HyperparameterSchedules({"adam_beta1": VALUES})
        return train(model_path, tmp_path, *callbacks, values, **given, **more)

    trainer, used = run(RequestAfter(), SaveAfter(15))
    if resumed_from:
        trainer, rest = run(resume=tmp_path / f"checkpoint-{resumed_from}")
        np.testing.assert_array_equal(rest, used[resumed_from:])
    assert trainer.state.global_step == len(used) == 21
    own, beta = (Schedule.parse(text, num_training_steps=40) for text in (f"warmup 5 | {OWN}", VALUES))
    np.testing.assert_array_equal(used[:, 0], curve(COOLED))
    np.testing.assert_array_equal(used[:15, 1], own.curve(peak=PEAK / 16)[:15])
    assert (np.diff(used[14:, 1]) < 0).all() and used[-1, 1] == own.floor(PEAK / 16)
    found = passed_audit(tmp_path)
    (values,) = [one for one in found.comparisons if one.is_hyperparameter]
    # The 25 planned steps that are left pass within 6.
    compressed = [*range(15), *(14 + -(-25 * step // 6) for step in range(1, 7))]
    np.testing.assert_array_equal(values.actual, beta.curve(peak=0.9)[compressed])
    assert values.actual[-1] == 0.1 * 0.9


class Lengthen(TrainerCallback):
    """Gives a cooldown 8 more steps after step 17, as a deadline does."""

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        if state.global_step == 17:
            lr_scheduler.set_group_schedule(decay_now(lr_scheduler.group_schedule, Request(8), step=17, skipped=0))
            lr_scheduler.set_rates()
            state.max_steps = 25


@pytest.mark.parametrize("resumed_from", [None, 16, 17, 20])
def test_hyperparameters_keep_their_direction_if_the_end_moves(model_path, tmp_path, resumed_from):
    def run(*callbacks, **more):
        values = hf_sched.HyperparameterSchedules({"adam_beta1": "decay 60% to 0.5 | warmup 40% to 0.8"})
        return train(model_path, tmp_path, *callbacks, Lengthen(), values, **SAVING, **more)

    run(RequestAfter(), SaveAfter(17))
    whole = passed_audit(tmp_path).comparisons[1].actual
    if resumed_from:
        run(resume=tmp_path / f"checkpoint-{resumed_from}")
        np.testing.assert_array_equal(passed_audit(tmp_path).comparisons[1].actual, whole)
    planned = Schedule.parse("decay 60% to 0.5 | warmup 40% to 0.8", num_training_steps=40).curve(peak=0.9)
    at = [planned.tolist().index(value) for value in whole]
    assert len(at) == 25 and at[:15] == [*range(15)] and at[15:17] == [19, 23]
    assert at == sorted(at) and at[-1] == 39


@pytest.mark.filterwarnings("ignore:Detected call:UserWarning")
def test_steps_skipped_before_do_not_shorten_the_cooldown(model_path, tmp_path):
    callbacks = [RequestAfter(), hf_sched.LiveControl()]
    trainer, recorder = make(model_path, tmp_path, callbacks=callbacks, **UNFUSED, **WSD, logging_steps=5)
    # Accelerate makes no scaler without a GPU. This one halves its scale at each skipped step and never raises it.
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", 2.0**127, 2.0**30, 2.0**-30, growth_interval=100)
    trainer.train()
    count = 20 - trainer.lr_scheduler.last_epoch + 1
    assert 1 <= count < 10  # how often the scale overflows depends on the size of the gradients
    cooled = curve(f"warmup 5 | hold {10 - count} | decay 6 1-sqrt")
    np.testing.assert_array_equal(np.array(recorder.used)[:, 0], [*[cooled[0]] * count, *cooled])


def test_without_a_request_training_is_unchanged(model_path, tmp_path):
    given = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {}, "logging_steps": 1}
    (mine, used), (theirs, expected) = (train(model_path, tmp_path / f"{live}", live=live, **given) for live in (1, 0))
    np.testing.assert_array_equal(used, expected)
    assert len(used) == 40
    assert all(map(torch.equal, mine.model.parameters(), theirs.model.parameters()))


# Rejected requests.

CONSTANT = {"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {}}


@pytest.mark.parametrize(
    ("given", "after", "request_", "why"),
    [
        ({"warmup_steps": 8}, 3, Request(6), r"must be constant .* at step 5 it is in a warmup \(steps 0 to 7 of"),
        ({}, 26, Request(2), r"must be constant .* at step 30 it is in a decay \(steps 30 to 39 of"),
        ({}, 13, Request(26), r"at most the 25 steps that the run of 40 has left after step 15, .* 26 steps"),
        ({}, 13, Request(6, min_lr=1.0), "`min_lr` must be at most the peak"),
        (CONSTANT, 13, Request(6), "'constant_with_warmup' is not one of hf_sched.*_type: wsd.*anneal_from"),
        (phases("decay 8 | hold", floor_ratio=0.5), 13, Request(6, floor_ratio=0.1), "the floor cannot change"),
    ],
)
def test_impossible_request_is_rejected_and_changes_nothing(
    model_path, tmp_path, warnings_logged, given, after, request_, why
):
    def send_both(folder, request):
        with pytest.raises(ValueError, match=f"(?s){why}"):
            send_request(folder, request)
        assert not (folder / COOLDOWN_REQUEST).exists()
        write_request(folder, request)

    trainer, used = train(model_path, tmp_path, RequestAfter(after, request_, send_both), **given)
    (message,) = warnings_logged()
    assert re.search(rf"(?s)^cooldown request rejected \(.*{why}.*\); training continues", message)
    if given is CONSTANT:
        np.testing.assert_array_equal(used[:, 0], np.minimum(np.arange(40) / 5, 1) * PEAK)
    else:
        passed_audit(tmp_path)  # every rate is the planned one
    assert len(used) == trainer.state.max_steps == 40
    assert json.loads(json.loads((tmp_path / COOLDOWN_REJECTED).read_text())["request"]) == vars(request_)
    assert not (tmp_path / COOLDOWN_REQUEST).exists()


def test_a_second_request_is_accepted_after_a_rejection_but_not_during_a_cooldown(
    model_path, tmp_path, warnings_logged
):
    first, last = RequestAfter(7, Request(33), write_request), RequestAfter(17, Request(1), write_request)
    _, used = train(model_path, tmp_path, first, RequestAfter(), last)
    np.testing.assert_array_equal(used[:, 0], curve(COOLED))
    rejected, accepted, during = warnings_logged()
    assert "`duration` must be at most" in rejected
    assert accepted == f"live cooldown from step 15 over 6 steps: {COOLED}"
    assert "at step 20 it is in a decay (steps 15 to 20" in during


REQUESTS = ["{", '{"duration": 0}', '{"steps": 6}', '{"duration": 1e400}', '{"shape": [1]}', "[" * 10**5, None]


@pytest.mark.parametrize("content", REQUESTS)
def test_training_continues_if_a_request_is_damaged_or_unreadable(model_path, tmp_path, warnings_logged, content):
    def write(folder, _):
        file = folder / COOLDOWN_REQUEST
        file.mkdir() if content is None else file.write_text(content)

    trainer, _ = train(model_path, tmp_path, RequestAfter(send=write), logging_steps=20)
    assert trainer.state.global_step == 40
    rejected = [message for message in warnings_logged() if message.startswith("cooldown request rejected (")]
    assert rejected and len(warnings_logged()) - len(rejected) == (content is None)  # a folder cannot be removed
    assert json.loads((tmp_path / COOLDOWN_REJECTED).read_text())["request"] == content
    passed_audit(tmp_path)


def test_requests_before_the_start_and_after_the_last_look_change_nothing(model_path, tmp_path, warnings_logged):
    write_request(tmp_path, Request(6))
    trainer, _ = train(model_path, tmp_path, RequestAfter(38, send=write_request))
    assert trainer.state.global_step == 40
    (late,) = warnings_logged()
    assert "the run had ended" in late


def test_training_continues_if_no_file_can_be_written(model_path, tmp_path, warnings_logged):
    for name in (COOLDOWN_STATUS, COOLDOWN_DONE, COOLDOWN_REJECTED, LEARNING_RATES):
        (tmp_path / name).mkdir()
    trainer, used = train(model_path, tmp_path, RequestAfter(send=write_request))
    assert len(used) == trainer.state.global_step == 40
    for name in (COOLDOWN_STATUS, COOLDOWN_REQUEST, LEARNING_RATES):  # a warning for each file, once
        assert sum(f"{name} cannot be read or written" in message for message in warnings_logged()) == 1


def test_all_ranks_meet_after_a_failure_to_read_a_request(model_path, tmp_path, warnings_logged, monkeypatch):
    met = []

    def stale(path, exists=Path.exists):
        if path.name == COOLDOWN_REQUEST:
            raise OSError(errno.ESTALE, "Stale file handle")
        return exists(path)

    monkeypatch.setattr(Path, "exists", stale)
    monkeypatch.setattr(live_cooldown, "_broadcast", lambda found, *others: (met.append(found), None))
    _, used = train(model_path, tmp_path, max_steps=20)
    assert len(used) == 20
    assert met == [None] * 3  # at the log lines of steps 5, 10 and 15
    assert any("Stale file handle" in message for message in warnings_logged())


# Resumes.


@pytest.fixture(scope="module")
def cooled(model_path, tmp_path_factory):
    """A run with a cooldown; checkpoints at 4, 8, 12, 15 (where it begins), 16, 20, 21."""
    folder = tmp_path_factory.mktemp("cooled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_cooldown, "STATUS_INTERVAL", 0.0)
        train(model_path, folder, RequestAfter(), SaveAfter(15), **SAVING)
    return folder


@pytest.fixture
def copy(cooled, tmp_path):
    return shutil.copytree(cooled, tmp_path / "run")


@pytest.mark.parametrize(("step", "live"), [(15, True), (20, True), (16, False)])
def test_a_checkpoint_from_the_cooldown_resumes_it(model_path, copy, warnings_logged, step, live):
    trainer, used = train(model_path, copy, resume=copy / f"checkpoint-{step}", live=live, **SAVING)
    assert warnings_logged() == []
    assert (trainer.state.global_step, trainer.state.max_steps) == (21, 21)
    np.testing.assert_array_equal(used[:, 0], curve(COOLED)[step:])
    assert passed_audit(copy).notes == ["live cooldown from step 15 over 6 steps", f"resumed at step {step}"]


def test_a_checkpoint_from_before_the_cooldown_resumes_the_original_schedule(model_path, copy, warnings_logged):
    trainer, used = train(model_path, copy, resume=copy / "checkpoint-12", **SAVING)
    assert "the checkpoint of step 12 is from before the cooldown" in warnings_logged()[0]
    assert (trainer.state.global_step, trainer.state.max_steps) == (40, 40)
    np.testing.assert_array_equal(used[:, 0], PLANNED[12:])
    passed_audit(copy)
    assert not (copy / COOLDOWN_DONE).exists()


def test_on_resume_decides_between_the_cooldown_and_another_schedule(model_path, copy, warnings_logged):
    resume = copy / "checkpoint-16"
    _, used = train(model_path, copy, resume=resume, lr_scheduler_kwargs={"decay": 12, "on_resume": "keep"})
    np.testing.assert_array_equal(used[:, 0], curve(COOLED)[16:])
    passed_audit(copy)
    _, used = train(model_path, copy, resume=resume, lr_scheduler_kwargs={"decay": 12, "on_resume": "replace"})
    assert "is from before the cooldown" in warnings_logged()[0]
    np.testing.assert_array_equal(used[:, 0], curve("warmup 5 | hold 23 | decay 12 1-sqrt")[16:])


def test_a_request_to_an_interrupted_run_waits_for_its_resume(model_path, tmp_path):
    train(model_path, tmp_path, RequestAfter(), SaveAfter(14, stop=True), **SAVING)
    assert (tmp_path / COOLDOWN_REQUEST).exists()
    _, used = train(model_path, tmp_path, resume=tmp_path / "checkpoint-14", **SAVING)
    np.testing.assert_array_equal(used[:, 0], curve(COOLED)[14:])
    passed_audit(tmp_path)


# The learning rates of a cooldown, without a training.


@pytest.mark.parametrize(
    "text",
    [
        "warmup 5 | hold 25 | decay 10 1-sqrt",
        "warmup 5 geometric from 0.01 | hold 10 | decay 5 to 0.3 | hold 10; floor 0.1",
        "warmup 4 cosine from 0.2 to 0.5 | hold 6 | restart 9 cosine from 1 to 0.25 | hold 11; min_lr 1e-4",
        "decay 7 polynomial 2 to 1.5 floor | hold 9; floor 0.125",
    ],
)
def test_cooldown_keeps_the_past_and_ends_on_the_floor(text):
    planned = GroupSchedule(Schedule.parse(text), (1e-2, 3e-3))
    end = planned.schedule.num_training_steps
    cooled = 0
    for step in range(end):
        try:  # a scaler skipped two
            made = {"step": step + 2, "skipped": 2, "end": end + 2}
            group_schedule = apply_request(planned, Request(3, "cosine"), name="x", **made)
        except ValueError:
            continue
        cooled += 1
        np.testing.assert_array_equal(group_schedule.rates(0, step), planned.rates(0, step))
        assert group_schedule.schedule.num_training_steps == step + 3
        assert (group_schedule.cooldown.step, group_schedule.cooldown.end) == (step + 2, step + 5)
        rates = group_schedule.rates(step, step + 3)
        assert (rates[:, 0] < planned.rates(step - 1, step)[:, 0]).all()
        np.testing.assert_array_equal(rates[:, -1], [planned.schedule.floor(peak) for peak in planned.peaks])
        assert GroupSchedule.from_state(json.loads(json.dumps(group_schedule.state()))) == group_schedule
        assert group_schedule.requested == planned.schedule
    holds = [one for one in planned.schedule.segments if one.kind == "hold"]
    assert cooled == sum(one.steps - (one.first == 0) - (one.first + one.steps > end - 2) * 2 for one in holds)


@pytest.mark.parametrize(("given", "end"), [({}, 2.5e-4), ({"floor_ratio": 0.5}, 5e-4), ({"min_lr": 1e-5}, 1e-5)])
@pytest.mark.parametrize("own", ["hold 2 | decay", "warmup 39 | hold", "restart 3 | hold at 0.5", "hold 1 | decay 39"])
def test_group_with_its_own_schedule_never_rises_in_a_cooldown(own, given, end):
    schedules = (
        Schedule.parse("warmup 5 | hold 25 | decay 10"),
        Schedule.parse(f"{own}; floor 0.25", num_training_steps=40),
    )
    planned = GroupSchedule(schedules[0], (1e-2, 1e-3), own=(None, schedules[1]))
    cooled = apply_request(planned, Request(5, "cosine", **given), name="x", step=12, skipped=2, end=42)
    rates, before = cooled.rates(0, 20), planned.rates(0, 10)
    np.testing.assert_array_equal(rates[:, :10], before)
    np.testing.assert_array_equal(rates[:, 14:], np.tile(rates[:, [14]], 6))
    assert (np.diff(rates[:, 9:]) <= 0).all()
    assert rates[1, 14] == min(end, before[1, 9])
    np.testing.assert_array_equal(cooled.rates(12, 15), rates[:, 12:15])
    assert GroupSchedule.from_state(json.loads(json.dumps(cooled.state()))) == cooled


def test_a_resume_transition_must_finish_before_a_cooldown():
    schedule = Schedule.parse("warmup 5 | hold 25 | decay 10")
    rewarming = GroupSchedule(schedule, (1e-2,), ResumeTransition("rewarm", 10, (5e-3,), 4))
    continued = GroupSchedule(schedule, (1e-2,), ResumeTransition("continue", 10, (5e-3,), 30))

    def cool(group_schedule, step):
        return apply_request(group_schedule, Request(3), name="wsd", step=step, skipped=0, end=40)

    for group_schedule, step in ((rewarming, 13), (continued, 20)):
        how = group_schedule.transition.how
        with pytest.raises(ValueError, match=f"transition of `on_resume: {how}`, from step 10 on, has not finished"):
            cool(group_schedule, step)
    np.testing.assert_array_equal(cool(rewarming, 15).rates(0, 15), rewarming.rates(0, 15))
