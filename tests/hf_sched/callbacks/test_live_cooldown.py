"""Live control: real trainings that are told, while they run, to cool down and end."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback

import hf_sched
from hf_sched._run_files import (
    COOLDOWN_DONE,
    COOLDOWN_REJECTED,
    COOLDOWN_REQUEST,
    COOLDOWN_STATUS,
    LEARNING_RATES,
    read_learning_rates,
    write_json,
)
from hf_sched.audit import audit
from hf_sched.callbacks import live_cooldown as live_control
from hf_sched.callbacks.cooldown import Request, ask, cool
from hf_sched.scheduler.group_schedule import GroupSchedule, ResumeTransition
from hf_sched.schedules.schedule import Schedule
from tests.helpers.trainer import PEAK, UNFUSED, make, two_groups

WSD = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": 10}, "max_steps": 40, "warmup_steps": 5}
SAVING = {"save_strategy": "steps", "save_steps": 4}
PLANNED = Schedule.parse("warmup 5 | hold 25 | decay 10 1-sqrt").curve(peak=PEAK)
COOLED = "warmup 5 | hold 10 | decay 6 1-sqrt"  # told at step 13, seen at 15


@pytest.fixture(autouse=True)
def the_run_says_at_each_look_where_it_is(monkeypatch):
    monkeypatch.setattr(live_control, "SECONDS", 0.0)


class Tell(TrainerCallback):
    """Asks the run it is in, as `hf-sched cooldown` does, after a step; or does something else there."""

    def __init__(self, at=13, request=Request(6), what=ask):  # noqa: B008 (it is frozen)
        self.at, self.request, self.what = at, request, what

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            self.what(Path(args.output_dir), self.request)


class Stop(TrainerCallback):
    """Ends the run after a step, as a time limit does."""

    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.at


def put(folder, request):
    """Ask without the checks of the command."""
    write_json(folder / COOLDOWN_REQUEST, vars(request))


def run(model_path, folder, *callbacks, resume=None, live=True, log=True, **given):
    """Train as a script does; the trainer and the rates of each group, one row a step."""
    callbacks = [
        *callbacks,
        *([hf_sched.LiveControl()] if live else []),
        *([hf_sched.LearningRateLog()] if log else []),
    ]
    trainer, recorder = make(model_path, folder, callbacks=callbacks, **{**WSD, "logging_steps": 5, **given})
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_state()
    return trainer, np.array(recorder.used)


def curve(text, peak=PEAK):
    return Schedule.parse(text).curve(peak=peak)


def right(folder):
    report = audit(folder)
    assert report.ok, report.lines
    assert report.deviation == 0
    return report


# What a run does that is told.


@pytest.mark.parametrize(
    ("given", "request_", "text"),
    [
        ({}, Request(6), COOLED),
        ({}, Request("25%"), "warmup 5 | hold 10 | decay 5 1-sqrt"),  # of the 20 that it then has
        ({"logging_steps": 1}, Request(6, "cosine"), "warmup 5 | hold 8 | decay 6 cosine"),
        ({}, Request(25), "warmup 5 | hold 10 | decay 25 1-sqrt"),  # up to the end
        ({}, Request(6, "polynomial 2", floor_ratio=0.1), "warmup 5 | hold 10 | decay 6 polynomial 2; floor 0.1"),
        ({}, Request(6, "linear", min_lr=1e-3), "warmup 5 | hold 10 | decay 6; min_lr 1e-3"),
        ({"logging_steps": 5, "warmup_steps": 15}, Request(6), "warmup 15 | decay 6 1-sqrt"),
        ({"logging_strategy": "epoch"}, Request(6), "warmup 5 | hold 11 | decay 6 1-sqrt"),
        ({"logging_steps": 0.1}, Request(6), "warmup 5 | hold 11 | decay 6 1-sqrt"),
        (
            {"lr_scheduler_type": "phases", "lr_scheduler_kwargs": {"phases": "hold at 0.5"}, "warmup_steps": 0},
            Request(6, "geometric", floor_ratio=0.1),
            "hold 15 at 0.5 | decay 6 geometric; floor 0.1",
        ),
        (
            {"lr_scheduler_kwargs": {"decay": 10, "floor_ratio": 0.2}, "gradient_accumulation_steps": 3},
            Request(1),
            "warmup 5 | hold 10 | decay 1; floor 0.2",
        ),
    ],
    ids=[
        "steps",
        "share",
        "at once",
        "to the end",
        "floor",
        "min_lr",
        "warmup",
        "epochs",
        "ratio",
        "level",
        "own floor",
    ],
)
def test_it_trains_on_the_curve_that_is_written_and_ends_there(model_path, tmp_path, given, request_, text):
    trainer, used = run(model_path, tmp_path, Tell(request=request_), **{**SAVING, **given})
    end = Schedule.parse(text).num_training_steps
    assert (trainer.state.global_step, trainer.state.max_steps) == (end, end)
    np.testing.assert_array_equal(used[:, 0], curve(text))
    assert (tmp_path / f"checkpoint-{end}").is_dir()
    assert {path.name for path in tmp_path.glob("*.json")} == {COOLDOWN_DONE, COOLDOWN_STATUS, "trainer_state.json"}
    report = right(tmp_path)
    told = f"told at step {end - Schedule.parse(text).segments[-1].steps} to cool down over"
    assert any(note.startswith(told) for note in report.notes)
    assert told in str(report.record.plans[-1])
    assert report.record.resumes == []
    assert report.as_dict()["num_training_steps"] == report.record.steps_made == end


def test_it_is_evaluated_and_saved_at_its_new_end(model_path, tmp_path):
    class Evaluated(Trainer):
        def __init__(self, *args, **given):
            super().__init__(*args, **given, eval_dataset=given["train_dataset"][:4])

    given = {"save_strategy": "steps", "save_steps": 100, "eval_strategy": "steps", "eval_steps": 100}
    trainer, _ = run(model_path, tmp_path, Tell(), cls=Evaluated, load_best_model_at_end=True, **given)
    assert [row["step"] for row in trainer.state.log_history if "eval_loss" in row] == [21]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-21")


def test_each_group_cools_down_from_its_own_peak(model_path, tmp_path):
    _, used = run(model_path, tmp_path, Tell(request=Request(6, min_lr=1e-4)), optimizers=two_groups)
    for rates, peak in zip(used.T, (PEAK, PEAK / 16), strict=True):
        np.testing.assert_array_equal(rates, curve(f"{COOLED}; min_lr 1e-4", peak))
    assert len(right(tmp_path).comparisons) == 2


def test_steps_that_a_gradient_scaler_skipped_before_do_not_shorten_it(model_path, tmp_path):
    skipped = []

    class Skips(TrainerCallback):
        def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
            skipped.append(optimizer.step_was_skipped)

    callbacks = [Skips(), Tell(), hf_sched.LiveControl()]
    trainer, recorder = make(model_path, tmp_path, callbacks=callbacks, **{**UNFUSED, **WSD, "logging_steps": 5})
    # Without a GPU, Accelerate makes none. It halves its scale with each step it skips, and never raises it here.
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", 2.0**127, 2.0**30, 2.0**-30, growth_interval=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "Detected call")
        trainer.train()
    count = sum(skipped)
    assert skipped == [True] * count + [False] * (21 - count)
    assert 1 <= count < 10  # how often the scale overflows depends on the size of the gradients
    cooled = curve(f"warmup 5 | hold {10 - count} | decay 6 1-sqrt")
    np.testing.assert_array_equal(np.array(recorder.used)[:, 0], [*[cooled[0]] * count, *cooled])


@pytest.mark.parametrize("saving", [SAVING, {}], ids=["checkpoints", "none"])
def test_the_audit_knows_it_without_our_log_too(model_path, tmp_path, saving):
    trainer, _ = run(model_path, tmp_path, Tell(), log=False, logging_steps=1, warmup_steps=0.125, **saving)
    trainer.save_model()  # with the arguments
    report = right(tmp_path)
    assert len(report.comparisons[0].steps) == 19 == report.record.plans[-1].total
    assert "5 of them warmup" in str(report.record.plans[-1])
    assert "told at step 13 to cool down over 6 steps" in report.notes


def test_the_log_of_every_step_has_the_new_plan_before_the_first_step_on_it(model_path, tmp_path):
    run(model_path, tmp_path, Tell())
    rows = read_learning_rates(tmp_path / LEARNING_RATES)
    told = [number for number, row in enumerate(rows) if "session" in row][1]
    assert (rows[told - 1]["step"], rows[told + 1]["step"]) == (15, 16)
    session = rows[told]["session"]
    assert (session["step"], session["num_training_steps"], session["told"]) == (15, 21, True)
    assert session["group_schedule"]["schedule"] == COOLED
    assert session["group_schedule"]["cooldown"] == {
        "step": 15,
        "steps": 6,
        "requested": "warmup 5 | hold 25 | decay 10 1-sqrt",
    }


def test_it_is_as_good_as_a_run_that_was_planned_so(model_path, tmp_path):
    told, _ = run(model_path, tmp_path / "told", Tell(), logging_steps=1)
    phases = {"phases": "warmup 5 | hold 8 | decay 6 1-sqrt"}
    planned, _ = run(
        model_path,
        tmp_path / "planned",
        **{"lr_scheduler_type": "phases", "lr_scheduler_kwargs": phases, "max_steps": 19, "warmup_steps": 0},
        logging_steps=1,
    )
    losses = [[row["loss"] for row in one.state.log_history if "loss" in row] for one in (told, planned)]
    assert losses[0] == losses[1]
    for one, other in zip(told.model.parameters(), planned.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_its_speed_is_that_of_the_samples_it_made(model_path, tmp_path):
    trainer, _ = run(model_path, tmp_path, Tell())
    made = trainer.state.log_history[-1]
    assert made["train_samples_per_second"] / made["train_steps_per_second"] == pytest.approx(4, rel=1e-4)


@pytest.mark.parametrize("name", ["wsd", "cosine_floor", "cosine"])
def test_a_run_that_is_not_told_is_the_same_with_it_and_without(model_path, tmp_path, name):
    given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": {}, "logging_steps": 1}
    (one, used), (other, others) = (run(model_path, tmp_path / f"{live}", live=live, **given) for live in (True, False))
    np.testing.assert_array_equal(used, others)
    assert len(used) == 40
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# What it does not.


CONSTANT = {"lr_scheduler_type": "constant_with_warmup", "lr_scheduler_kwargs": {}}
ON_THE_FLOOR = {
    "lr_scheduler_type": "phases",
    "lr_scheduler_kwargs": {"phases": "decay 8 | hold", "floor_ratio": 0.5},
    "warmup_steps": 0,
}


@pytest.mark.parametrize(
    ("given", "at", "request_", "why"),
    [
        ({"warmup_steps": 8}, 3, Request(6), r"must be constant .* at step 5 it is in a warmup \(steps 0 to 7 of"),
        ({}, 26, Request(2), r"must be constant .* at step 30 it is in a decay \(steps 30 to 39 of"),
        ({}, 13, Request(26), r"at most the 25 steps that the run of 40 has left from step 15 on, .* 26 steps"),
        ({}, 13, Request("70%"), r"at most the 25 steps .* received '70%', which is 35 steps"),
        ({}, 13, Request(6, floor_ratio=0.1, min_lr=1e-4), "the floor is given twice"),
        ({}, 13, Request(6, min_lr=1.0), "`min_lr` must be at most the peak learning rate 0.01, received 1.0"),
        ({}, 13, Request(6, "geometric"), "`shape` 'geometric' needs levels above 0"),
        (CONSTANT, 13, Request(6), "'constant_with_warmup', is none of hf_sched.*lr_scheduler_type: wsd.*anneal_from"),
        (ON_THE_FLOOR, 13, Request(6, floor_ratio=0.1), "the phases so far stand on the floor"),
        ({"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {}}, 13, Request(6), "in a decay"),
    ],
    ids=[
        "warmup",
        "decay",
        "long",
        "share",
        "floors",
        "min_lr",
        "geometric",
        "constant",
        "on the floor",
        "cosine",
    ],
)
def test_what_cannot_be_is_told_of_once_and_changes_nothing(model_path, tmp_path, given, at, request_, why):
    refused = []

    def both(folder, request):
        with pytest.raises(ValueError, match=f"(?s){why}"):
            ask(folder, request)
        assert not (folder / COOLDOWN_REQUEST).exists()
        refused.append(True)
        put(folder, request)

    with pytest.warns(UserWarning, match=f"(?s)goes on as planned, it cannot cool down as told: .*{why}"):
        trainer, used = run(model_path, tmp_path, Tell(at, request_, both), **given)
    assert refused
    if given is CONSTANT:
        planned = np.minimum(np.arange(40) / 5, 1) * PEAK
    else:
        requested = {**WSD, **given}
        planned = hf_sched.build(
            requested["lr_scheduler_type"],
            num_training_steps=40,
            num_warmup_steps=requested["warmup_steps"],
            **requested["lr_scheduler_kwargs"],
        ).curve(peak=PEAK)
        right(tmp_path)
    np.testing.assert_array_equal(used[:, 0], planned)
    assert trainer.state.max_steps == 40
    said = json.loads((tmp_path / COOLDOWN_REJECTED).read_text())
    assert said["step"] == -(-at // 5) * 5
    assert json.loads(said["request"]) == vars(request_)
    assert not (tmp_path / COOLDOWN_REQUEST).exists()
    assert not (tmp_path / COOLDOWN_DONE).exists()


def test_after_a_refusal_it_may_be_told_again(model_path, tmp_path):
    with pytest.warns(UserWarning, match="`duration` must be at most"):
        _, used = run(model_path, tmp_path, Tell(7, Request(33), put), Tell())
    np.testing.assert_array_equal(used[:, 0], curve(COOLED))


def test_while_it_cools_down_it_cannot_be_told_again(model_path, tmp_path):
    again = Tell(17, Request(1), put)
    with pytest.warns(UserWarning, match=r"at step 20 it is in a decay \(steps 15 to 20"):
        _, used = run(model_path, tmp_path, Tell(), again)
    np.testing.assert_array_equal(used[:, 0], curve(COOLED))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"duration": 0}', '{"duration": "1ep"}', '{"steps": 6}', '{"shape": "up"}']
)
def test_a_request_that_is_none_is_refused(model_path, tmp_path, text):
    with pytest.warns(UserWarning, match="it cannot cool down as told"):
        trainer, _ = run(
            model_path, tmp_path, Tell(what=lambda folder, _: (folder / COOLDOWN_REQUEST).write_text(text))
        )
    assert trainer.state.global_step == 40
    assert json.loads((tmp_path / COOLDOWN_REJECTED).read_text())["request"] == text


def test_a_request_that_cannot_be_read_ends_no_run(model_path, tmp_path):
    with pytest.warns(UserWarning, match="it cannot cool down as told: .*Is a directory"):
        trainer, _ = run(model_path, tmp_path, Tell(what=lambda folder, _: (folder / COOLDOWN_REQUEST).mkdir()))
    assert trainer.state.global_step == 40
    right(tmp_path)


def test_a_request_that_comes_too_late_or_lay_there_before_is_refused(model_path, tmp_path):
    with pytest.warns(UserWarning, match="the run had ended"):
        run(model_path, tmp_path, Tell(38, what=put))
    put(tmp_path, Request(6))
    with pytest.warns(UserWarning, match="it was there before the run began"):
        trainer, _ = run(model_path, tmp_path)
    assert trainer.state.global_step == 40


# Resumes.


@pytest.fixture(scope="module")
def told(model_path, tmp_path_factory):
    """A run that was told, with its checkpoints at 4, 8, 12, 15, 16, 20, 21; 15 is where it was told."""
    folder = tmp_path_factory.mktemp("told")

    class Save(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save |= state.global_step == 15

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_control, "SECONDS", 0.0)
        run(model_path, folder, Tell(), Save(), **SAVING)
    return folder


@pytest.fixture
def copy(told, tmp_path):
    return shutil.copytree(told, tmp_path / "run")


def test_checkpoints_hold_plain_values(told):
    state = torch.load(told / "checkpoint-20" / "scheduler.pt", weights_only=True)
    assert state["schedule"] == COOLED
    assert state["cooldown"] == {"step": 15, "steps": 6, "requested": "warmup 5 | hold 25 | decay 10 1-sqrt"}
    assert torch.load(told / "checkpoint-12" / "scheduler.pt", weights_only=True)["cooldown"] is None


@pytest.mark.parametrize("live", [True, False], ids=["with it", "without"])
@pytest.mark.parametrize("step", [15, 16, 20])
def test_a_checkpoint_of_the_cooldown_goes_on_with_it_by_the_same_command(model_path, copy, step, live):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer, used = run(model_path, copy, resume=copy / f"checkpoint-{step}", live=live, **SAVING)
    assert (trainer.state.global_step, trainer.state.max_steps) == (21, 21)
    np.testing.assert_array_equal(used[:, 0], curve(COOLED)[step:])
    report = right(copy)
    assert report.record.resumes == [step]
    assert len(report.comparisons[0].steps) == 21
    assert report.notes == ["told at step 15 to cool down over 6 steps", f"resumed at step {step}"]
    if live:
        made = trainer.state.log_history[-1]
        assert made["train_samples_per_second"] / made["train_steps_per_second"] == pytest.approx(4, rel=1e-4)


def test_a_checkpoint_of_before_goes_on_as_planned_says_so_and_may_be_told_again(model_path, copy):
    with pytest.warns(UserWarning, match="told at step 15 to cool down, but its resume at step 12 .* as planned"):
        trainer, used = run(model_path, copy, resume=copy / "checkpoint-12", **SAVING)
    assert (trainer.state.global_step, trainer.state.max_steps) == (40, 40)
    np.testing.assert_array_equal(used[:, 0], PLANNED[12:])
    right(copy)
    assert not (copy / COOLDOWN_DONE).exists()
    _, used = run(model_path, copy, Tell(21, Request(3)), resume=copy / "checkpoint-20", **SAVING)
    np.testing.assert_array_equal(used[:, 0], curve("warmup 5 | hold 20 | decay 3 1-sqrt")[20:])
    right(copy)


def test_another_schedule_is_refused_as_ever_and_on_resume_decides(model_path, copy):
    other = {"lr_scheduler_kwargs": {"decay": 12}}
    with pytest.raises(ValueError, match="was trained under another schedule"):
        run(model_path, copy, resume=copy / "checkpoint-16", **other)
    with pytest.warns(UserWarning, match="its resume at step 16 knows nothing of that"):
        _, used = run(
            model_path,
            copy,
            resume=copy / "checkpoint-16",
            lr_scheduler_kwargs={"decay": 12, "on_resume": "replace"},
        )
    np.testing.assert_array_equal(used[:, 0], curve("warmup 5 | hold 23 | decay 12 1-sqrt")[16:])


def test_on_resume_keep_keeps_the_cooldown_and_its_end(model_path, copy):
    trainer, used = run(
        model_path, copy, resume=copy / "checkpoint-16", lr_scheduler_kwargs={"decay": 12, "on_resume": "keep"}
    )
    assert trainer.state.global_step == 21
    np.testing.assert_array_equal(used[:, 0], curve(COOLED)[16:])
    right(copy)


def test_a_request_to_a_run_that_was_stopped_waits_for_its_resume(model_path, tmp_path):
    class Save(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save |= state.global_step == 14

    run(model_path, tmp_path, Tell(), Save(), Stop(14), **SAVING)
    assert (tmp_path / COOLDOWN_REQUEST).exists()
    _, used = run(model_path, tmp_path, resume=tmp_path / "checkpoint-14", **SAVING)
    np.testing.assert_array_equal(used[:, 0], curve(COOLED)[14:])
    right(tmp_path)


# The group_schedule that comes of it.


@pytest.mark.parametrize(
    "text",
    [
        "warmup 5 | hold 25 | decay 10 1-sqrt",
        "warmup 5 geometric from 0.01 | hold 10 | decay 5 to 0.3 | hold 10; floor 0.1",
        "warmup 4 cosine from 0.2 to 0.5 | hold 6 | restart 9 cosine from 1 to 0.25 | hold 11; min_lr 1e-4",
        "hold 5 at 0.3 | warmup 5 exponential 2 | hold 9 | decay 4 every 2",
        "decay 7 polynomial 2 to 1.5 floor | hold 9; floor 0.125",
    ],
)
def test_up_to_the_step_it_is_the_same_course_and_on_the_floor_at_its_end(text):
    planned = GroupSchedule(Schedule.parse(text), (1e-2, 3e-3))
    end = planned.schedule.num_training_steps
    cooled = 0
    for step in range(end):
        try:
            group_schedule = cool(planned, Request(3, "cosine"), name="x", step=step, made=step + 2, end=end + 2)
        except ValueError:
            continue
        cooled += 1
        np.testing.assert_array_equal(group_schedule.rates(0, step), planned.rates(0, step))
        assert group_schedule.schedule.num_training_steps == step + 3
        assert (group_schedule.cooldown.step, group_schedule.cooldown.end) == (
            step + 2,
            step + 5,
        )  # a scaler had skipped two
        before = planned.rates(step - 1, step)[:, 0]
        floors = [planned.schedule.floor(peak) for peak in planned.peaks]
        rates = group_schedule.rates(step, step + 3)
        assert (rates[:, 0] < before).all()
        np.testing.assert_array_equal(rates[:, -1], floors)
        assert GroupSchedule.from_state(json.loads(json.dumps(group_schedule.state()))) == group_schedule
        assert group_schedule.requested == planned.schedule
    holds = [one for one in planned.schedule.segments if one.kind == "hold"]
    assert cooled == sum(one.steps - (one.first == 0) - (one.first + one.steps > end - 2) * 2 for one in holds)


def test_a_joint_must_be_passed():
    schedule = Schedule.parse("warmup 5 | hold 25 | decay 10")
    rewarming = GroupSchedule(schedule, (1e-2,), ResumeTransition("rewarm", 10, (5e-3,), 4))
    for step in (11, 13):
        with pytest.raises(ValueError, match="was resumed at step 10 with `on_resume: rewarm`, and is still at that"):
            cool(rewarming, Request(3), name="wsd", step=step, made=step, end=40)
    cooled = cool(rewarming, Request(3), name="wsd", step=15, made=15, end=40)
    np.testing.assert_array_equal(cooled.rates(0, 15), rewarming.rates(0, 15))
    continued = GroupSchedule(schedule, (1e-2,), ResumeTransition("continue", 10, (5e-3,), 30))
    with pytest.raises(ValueError, match="`on_resume: continue`, and is still at that"):
        cool(continued, Request(3), name="wsd", step=20, made=20, end=40)


def test_files_are_written_whole(tmp_path):
    write_json(tmp_path / COOLDOWN_REQUEST, {"duration": 6})
    assert json.loads((tmp_path / COOLDOWN_REQUEST).read_text()) == {"duration": 6}
    assert os.listdir(tmp_path) == [COOLDOWN_REQUEST]
