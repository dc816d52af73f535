"""Time budgets in real trainings with a clock that the test sets, and how their text is read."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone

import numpy as np
import pytest
from transformers import Trainer, TrainerCallback

import hf_sched
from hf_sched._run_files import COOLDOWN_DONE, COOLDOWN_STATUS
from hf_sched.audit import audit
from hf_sched.callbacks.time_budget import TimeBudget
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.live_cooldown import RequestAfter
from tests.helpers.trainer import PEAK, make, two_groups

LONG = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"floor_ratio": 0.1}, "max_steps": 1000, "warmup_steps": 5}
SAVING = {"save_strategy": "steps", "save_steps": 10, "eval_strategy": "steps", "eval_steps": 10}
FLOOR = 0.1


class Clock(TrainerCallback):
    """A clock on which each optimizer step lasts `seconds(step)`, an evaluation and a checkpoint `pause` each."""

    def __init__(self, seconds=lambda step: 1.0, pause=0.0, now=1e9):
        self.seconds, self.pause, self.now = seconds, pause, now

    def __call__(self):
        return self.now

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.now += self.seconds(state.global_step)

    def on_evaluate(self, args, state, control, **kwargs):
        self.now += self.pause

    on_save = on_evaluate


class KillAfter(TrainerCallback):
    """Ends the run at a checkpoint, as a kill does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


class Evaluating(Trainer):
    """Evaluates on a part of the training rows."""

    def __init__(self, *args, train_dataset, **given):
        super().__init__(*args, train_dataset=train_dataset, eval_dataset=train_dataset[:4], **given)


def train(model_path, folder, clock, budget, *callbacks, resume=None, live=None, **given):
    """Train with a time budget; the trainer, and the used rates of shape (steps, groups)."""
    control = hf_sched.LiveControl(budget, clock=clock, **(live or {}))
    given = {**LONG, "logging_strategy": "no", **given}
    # The clock comes first, as the Trainer's own work does.
    callbacks = [clock, *callbacks, control, hf_sched.LearningRateLog()]
    trainer, recorder = make(model_path, folder, cls=Evaluating, callbacks=callbacks, **given)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_state()
    return trainer, np.array(recorder.used)


def ends_on_floor(folder, trainer, used, floor=FLOOR):
    """Check that the last step trained on the floor, that no rate rose after the warmup, and that the audit passes."""
    assert trainer.state.global_step == trainer.state.max_steps
    np.testing.assert_array_equal(used[-1], floor * used.max(axis=0))
    assert (np.diff(used[5:], axis=0) <= 0).all()
    report = audit(folder)
    assert report.ok and report.deviation == 0, report.lines
    return report


def test_run_ends_annealed_and_saved_just_before_the_deadline(model_path, tmp_path):
    clock = Clock(pause=2.0)
    trainer, used = train(model_path, tmp_path, clock, "100s", live={"cooldown": "25%"}, **SAVING)
    report = ends_on_floor(tmp_path, trainer, used)
    steps = trainer.state.global_step
    # 70 steps with six evaluations and six checkpoints, then the last of both take 98 s.
    assert clock.now - 1e9 <= 100
    (cooldown,) = {plan.cooldown for plan in report.record.plans} - {None}
    assert cooldown.steps == pytest.approx(steps / 4, abs=1)
    planned = hf_sched.Schedule.parse(f"warmup 5 | hold {cooldown.step - 5} | decay {cooldown.steps} 1-sqrt; floor 0.1")
    np.testing.assert_array_equal(used[:, 0], planned.curve(peak=PEAK))
    assert (tmp_path / f"checkpoint-{steps}").is_dir() and (tmp_path / COOLDOWN_DONE).is_file()
    status = json.loads((tmp_path / COOLDOWN_STATUS).read_text())
    assert status["ended"] and status["end"] == steps


@pytest.mark.parametrize("slow_from", [30, 55, 62])
def test_slower_steps_shorten_the_cooldown(model_path, tmp_path, slow_from):
    clock = Clock(lambda step: 3.0 if step >= slow_from else 1.0)
    trainer, used = train(model_path, tmp_path, clock, "80s", optimizers=two_groups)
    ends_on_floor(tmp_path, trainer, used)
    assert 74 <= clock.now - 1e9 <= 80


def test_faster_steps_keep_the_length_of_the_cooldown(model_path, tmp_path):
    clock = Clock(lambda step: 0.5 if step >= 70 else 1.0)
    trainer, used = train(model_path, tmp_path, clock, "80s")
    assert len(ends_on_floor(tmp_path, trainer, used).record.plans) == 2


PHASES = {"lr_scheduler_type": "phases", "warmup_steps": 0}


@pytest.mark.parametrize(
    "schedule",
    [
        {"lr_scheduler_type": "cosine_floor"},
        {"lr_scheduler_type": "cosine_restarts", "lr_scheduler_kwargs": {"num_cycles": 6, "floor_ratio": 0.1}},
        {**PHASES, "lr_scheduler_kwargs": {"phases": "hold 60% at 0.5 | decay to 0.2", "floor_ratio": 0.1}},
        {"warmup_steps": 200},
        {"warmup_steps": 20, "lr_scheduler_kwargs": {"decay": 979, "floor_ratio": 0.1}},
    ],
)
def test_deadline_in_a_warmup_or_decay_ends_on_the_floor(model_path, tmp_path, schedule):
    clock = Clock(lambda step: 1.0 + step / 100)
    trainer, used = train(model_path, tmp_path, clock, "60s", optimizers=two_groups, **schedule)
    report = audit(tmp_path)
    assert report.ok and report.deviation == 0 and trainer.state.global_step == trainer.state.max_steps
    np.testing.assert_array_equal(used[-1], [FLOOR * PEAK, FLOOR * (PEAK / 16)])
    assert 55 <= clock.now - 1e9 <= 60
    plans = report.record.plans
    requested, first = plans[0].group_schedule, plans[1].cooldown.step
    np.testing.assert_array_equal(used[:first], requested.rates(0, first).T)
    assert (np.diff(used[first - 1 :], axis=0) <= 0).all()


def test_group_with_its_own_schedule_ends_with_the_others(model_path, tmp_path):
    def with_own_schedule(model):
        optimizer, _ = two_groups(model)
        optimizer.param_groups[1]["lr_schedule"] = "decay cosine; floor 0.25"
        return optimizer, None

    clock = Clock(lambda step: 3.0 if step >= 62 else 1.0)
    values = hf_sched.HyperparameterSchedules({"adam_beta1": "decay cosine to 0.1"})
    _, used = train(model_path, tmp_path, clock, "80s", values, optimizers=with_own_schedule)
    np.testing.assert_array_equal(used[-1], [FLOOR * PEAK, 0.25 * (PEAK / 16)])
    assert (np.diff(used[5:], axis=0) <= 0).all() and clock.now - 1e9 <= 80
    report = audit(tmp_path)
    assert report.ok and report.deviation == 0 and len(report.record.plans) > 2
    assert report.comparisons[-1].is_hyperparameter
    assert report.comparisons[-1].actual[-1] == pytest.approx(0.09)


def test_run_that_ends_in_time_is_unchanged_and_says_so(model_path, tmp_path, caplog):
    caplog.set_level("INFO", "hf_sched")
    trainer, used = train(model_path, tmp_path, Clock(), "100s", max_steps=50)
    planned = hf_sched.build("wsd", num_training_steps=50, num_warmup_steps=5, floor_ratio=0.1)
    np.testing.assert_array_equal(used[:, 0], planned.curve(peak=PEAK))
    said = [message for message in caplog.messages if "deadline" in message]
    assert said == ["the training ended 50 s before its deadline, by itself: the time budget changed nothing"]
    assert not (tmp_path / COOLDOWN_DONE).exists() and trainer.state.max_steps == 50


@pytest.mark.parametrize(("budget", "at"), [("80s", 30), ("80s", 70), (datetime.fromtimestamp(1e9 + 1080), 30)])
def test_elapsed_time_carries_over_a_resume(model_path, tmp_path, budget, at):
    first = Clock()
    train(model_path, tmp_path, first, budget, KillAfter(at), **SAVING)
    later = Clock(now=1e9 + 1000)
    resume = tmp_path / f"checkpoint-{at}"
    trainer, used = train(model_path, tmp_path, later, budget, resume=resume, **SAVING)
    took = first.now - 1e9 + later.now - (1e9 + 1000) if budget == "80s" else later.now - 1e9 - 1000
    assert 70 <= took <= 80
    assert used[-1, 0] == FLOOR * PEAK and (np.diff(used, axis=0) <= 0).all()
    assert audit(tmp_path).ok and trainer.state.global_step == trainer.state.max_steps
    elapsed = json.loads((tmp_path / "trainer_state.json").read_text())["stateful_callbacks"]["LiveControl"]
    assert (
        elapsed["attributes"]["elapsed"] == took if budget == "80s" else elapsed["args"]["time_budget"] == str(budget)
    )


def test_used_up_budget_ends_the_resumed_run_at_once(model_path, tmp_path):
    train(model_path, tmp_path, Clock(), "200s", KillAfter(30), **SAVING)
    resume = tmp_path / "checkpoint-30"
    trainer, used = train(model_path, tmp_path, Clock(), "20s", resume=resume, **SAVING)
    assert trainer.state.global_step == 33 and used[-1, 0] == FLOOR * PEAK


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 21), (3.0, 20)])
def test_cooldown_on_request_keeps_the_deadline(model_path, tmp_path, seconds, steps):
    request, clock = RequestAfter(13), Clock(lambda step: seconds if step >= 16 else 1.0)
    log = {"logging_strategy": "steps", "logging_steps": 5}
    trainer, used = train(model_path, tmp_path, clock, "30s", request, live={"cooldown": "5%"}, **log)
    ends_on_floor(tmp_path, trainer, used)
    assert trainer.state.global_step == steps and clock.now - 1e9 <= 30


def test_first_slow_step_does_not_begin_the_cooldown(model_path, tmp_path):
    clock = Clock(lambda step: 30.0 if step == 0 else 1.0)
    trainer, used = train(model_path, tmp_path, clock, "80s", live={"cooldown": 20})
    ends_on_floor(tmp_path, trainer, used)
    assert trainer.state.global_step > 40


def test_time_reserve_is_kept_free(model_path, tmp_path):
    clock = Clock()
    trainer, used = train(model_path, tmp_path, clock, "80s", live={"time_reserve": "20s"})
    ends_on_floor(tmp_path, trainer, used)
    assert 58 <= clock.now - 1e9 <= 60


# Wrong arguments.


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {}},
            "needs an `lr_scheduler_type` of hf_sched, not 'cosine'",
        ),
        ({"live": {"shape": "geometric"}, "lr_scheduler_kwargs": {}}, "`shape`"),
    ],
)
def test_impossible_budget_is_an_error_before_the_first_step(model_path, tmp_path, given, why):
    clock = Clock()
    with pytest.raises(ArgumentError, match=why):
        train(model_path, tmp_path, clock, "80s", **given)
    assert clock.now == 1e9


NOW = datetime(2026, 11, 28, 14, 30, tzinfo=timezone.utc).timestamp()


@pytest.fixture
def local_time(monkeypatch):
    """A zone two hours east of Greenwich, in which it is 16:30."""
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90m", 5400), ("2h30m", 9000), ("1d2h", 93600), ("3600s", 3600), ("1.5h", 5400), ("1h 30m", 5400)),
        *(("18:00", 5400), ("16:00", 84600), ("14:45Z", 900), ("15:00+00:00", 1800), ("16:30:30", 30)),
        *(("2026-11-28 18:00", 5400), ("2026-11-28T18:00:00+01:00", 9000), ("2026-11-29", 27000)),
        (datetime(2026, 11, 28, 18), 5400),
    ],
)
@pytest.mark.usefixtures("local_time")
def test_deadline_is_read_from_text(text, seconds):
    assert TimeBudget.parse(text, NOW).deadline(NOW) - NOW == seconds


@pytest.mark.parametrize(
    ("value", "why"),
    [
        *(
            (text, "must be a duration with units")
            for text in ("", "2 hours", "h", "90", "25:00", "2026-13-01 10:00", True)
        ),
        *((number, "YAML reads 18:00 without quotes as a number") for number in (1080, 5400.0)),
        *(("0s", "longer than 0"), ("2026-11-28 16:00", "in the past"), (datetime(2026, 11, 28, 16), "in the past")),
    ],
)
@pytest.mark.usefixtures("local_time")
def test_wrong_budget_is_rejected(value, why):
    with pytest.raises(ArgumentError, match=f"^`time_budget` .*{why}"):
        TimeBudget.parse(value, NOW)


def test_slurm_tells_its_own_end(monkeypatch, tmp_path):
    budget = TimeBudget.parse("slurm", NOW)
    for name in ("SLURM_JOB_END_TIME", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ArgumentError, match="is slurm, but this is no Slurm job"):
        budget.deadline(NOW)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$*" = "--noheader --jobs 17 --format %e" ] && echo 2026-11-28T18:00:00\n')
    squeue.chmod(0o755)
    assert budget.deadline(NOW) == datetime(2026, 11, 28, 18).timestamp()
    squeue.write_text("#!/bin/sh\necho N/A\n")
    with pytest.raises(ArgumentError, match="the end of job 17 is unknown"):
        budget.deadline(NOW)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1796000000")
    assert budget.deadline(NOW) == 1796000000
