"""The audit of a run: real trainings that go wrong, each found out with its cause, and right ones left alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback

import hf_sched
from hf_sched._run_files import LEARNING_RATES
from hf_sched.audit import audit
from hf_sched.schedules import registry
from tests.helpers.trainer import PEAK, STEPS, WARMUP, make, two_groups

COSINE = {"lr_scheduler_type": "cosine"}
OURS = {"lr_scheduler_type": "cosine_floor"}
SAVING = {"save_strategy": "steps", "save_steps": 6}
# What a run can be audited by: what the Trainer leaves, or our log of every step.
WITH = pytest.mark.parametrize("log", [False, True], ids=["trainer_state", "every step"])
pytestmark = pytest.mark.filterwarnings("ignore:Detected call:UserWarning")


def run(model_path, folder, *, log=False, callbacks=(), resume=None, finish=True, **given):
    """Train as a script does; what it used."""
    log_callback = [hf_sched.LearningRateLog()] if log else []
    trainer, recorder = make(model_path, folder, callbacks=[*callbacks, *log_callback], **{**COSINE, **given})
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if finish:
        trainer.save_state()
        trainer.save_model()
    return np.array(recorder.used)[:, 0]


def finding(folder, **given) -> str:
    """The one thing that the audit finds."""
    report = audit(folder, **given)
    assert not report.ok
    assert len(report.findings) == 1, report.findings
    assert any(report.findings[0] in line for line in report.lines)
    return report.findings[0]


class StepAgain(TrainerCallback):
    """Steps the scheduler besides the Trainer, from a step on."""

    def __init__(self, times=1, since=0, only=False):
        self.times, self.since, self.only = times, since, only

    def on_step_end(self, args, state, control, lr_scheduler=None, **kwargs):
        if state.global_step - 1 == self.since or (state.global_step > self.since and not self.only):
            for _ in range(self.times):
                lr_scheduler.step()


# Right ones.


@WITH
@pytest.mark.parametrize(
    "given",
    [
        COSINE,
        OURS,
        {"lr_scheduler_type": "linear", "logging_steps": 5, "warmup_steps": 0.2},
        {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": "1ep"}, "max_steps": -1, "num_train_epochs": 2},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2.0}},
        {**OURS, "optimizers": two_groups},
        {**OURS, "gradient_accumulation_steps": 3},
        {"lr_scheduler_type": "lars_warmup", "lr_scheduler_kwargs": {"warmup": 4, "after": "wsd"}, "warmup_steps": 0},
    ],
    ids=["built-in", "ours", "log of 5", "epochs", "arguments", "two groups", "accumulation", "trust ratios"],
)
def test_a_right_run_does_not_deviate(model_path, tmp_path, given, log):
    used = run(model_path, tmp_path, log=log, **{**SAVING, **given})
    report = audit(tmp_path)
    assert report.ok, report.lines
    assert report.deviation <= 1e-15
    assert report.departs is None
    seen = report.comparisons[0]
    every = given.get("logging_steps", 1)
    whole = range(len(used)) if log else range(every - 1, len(used), every)
    assert seen.steps.tolist() == list(whole)
    if given.get("lr_scheduler_type") != "lars_warmup":
        np.testing.assert_allclose(report.curve(), used, rtol=0, atol=1e-15)
    assert len(report.comparisons) == (2 if log and "optimizers" in given else 1)


@WITH
def test_a_run_that_was_killed_is_audited_as_far_as_it_went(model_path, tmp_path, log):
    class Kill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 9:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model_path, tmp_path, log=log, callbacks=[Kill()], **SAVING)
    report = audit(tmp_path)
    assert report.ok
    assert report.comparisons[0].steps.tolist() == list(range(9 if log else 6))
    assert any(f"ends after {9 if log else 6} of 12" in note for note in report.notes)
    assert audit(tmp_path / "checkpoint-6").ok


@WITH
@pytest.mark.parametrize("saved_after", [True, False])
def test_a_resume_that_was_joined_is_right(model_path, tmp_path, log, saved_after):
    run(model_path, tmp_path, log=log, **OURS, **SAVING)
    joined = {"learning_rate": PEAK / 2, "max_steps": 20, "lr_scheduler_kwargs": {"on_resume": "continue"}}
    saving = SAVING if saved_after else {"save_strategy": "no"}
    used = run(model_path, tmp_path, log=log, resume=tmp_path / "checkpoint-6", **{**OURS, **saving, **joined})
    report = audit(tmp_path)
    assert report.ok, report.lines
    assert report.deviation <= 1e-15
    assert len(report.record.plans) == 2
    np.testing.assert_allclose(report.curve()[6:], used, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(report.comparisons[0].steps, range(20))


@WITH
def test_a_branch_is_judged_from_where_it_left_the_other_run(model_path, tmp_path, log):
    run(model_path, tmp_path / "long", lr_scheduler_type="wsd", lr_scheduler_kwargs={"decay": 2}, log=log, **SAVING)
    branch = hf_sched.anneal_from(tmp_path / "long" / "checkpoint-6", 4)
    used = run(
        model_path, tmp_path / "cooled", log=log, resume=branch["resume_from_checkpoint"], **{**SAVING, **branch}
    )
    report = audit(tmp_path / "cooled")
    assert report.ok, report.lines
    assert report.comparisons[0].steps.tolist() == [6, 7, 8, 9]
    np.testing.assert_array_equal(report.comparisons[0].planned, used)
    assert any("began at step 6, from a checkpoint" in note for note in report.notes)


@WITH
def test_a_curve_that_was_kept_under_a_built_in_name_is_right(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, **OURS, **SAVING)
    keep = {**COSINE, "lr_scheduler_kwargs": {"on_resume": "keep"}}
    run(model_path, tmp_path, log=log, resume=tmp_path / "checkpoint-6", **SAVING, **keep)
    report = audit(tmp_path)
    assert report.ok, report.lines


def test_a_schedule_of_ones_own_is_known_by_its_curve_where_it_is_not_registered(model_path, tmp_path):
    hf_sched.register("own_for_the_audit")(lambda: [hf_sched.hold("50%"), hf_sched.decay()])
    run(model_path, tmp_path, lr_scheduler_type="own_for_the_audit", **SAVING)
    del registry._entries["own_for_the_audit"]
    assert audit(tmp_path).ok
    for place in tmp_path.glob("checkpoint-*"):
        shutil.rmtree(place)
    with pytest.raises(ValueError, match=r"'own_for_the_audit' is not the name of a schedule.* audit in Python"):
        audit(tmp_path)


# Wrong ones.


@WITH
def test_a_scheduler_stepped_twice(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, callbacks=[StepAgain()])
    assert "stepped twice for each optimizer step: " in finding(tmp_path)
    assert audit(tmp_path).departs == 1


@WITH
def test_a_scheduler_stepped_twice_from_a_step_on(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, callbacks=[StepAgain(since=4)])
    assert "stepped twice for each optimizer step, from step 5 on" in finding(tmp_path)
    assert audit(tmp_path).departs == 5


@pytest.mark.parametrize("every", [1, 4])
def test_a_scheduler_stepped_once_for_each_process(model_path, tmp_path, every):
    run(model_path, tmp_path, callbacks=[StepAgain(3)], max_steps=40, logging_steps=every)
    found = finding(tmp_path)
    assert "stepped 4 times for each optimizer step: `accelerator.prepare(scheduler)`" in found


def test_a_scheduler_stepped_for_each_batch(model_path, tmp_path):
    run(model_path, tmp_path, callbacks=[StepAgain(2)], gradient_accumulation_steps=3)
    assert "3 times for each optimizer step: as many as `gradient_accumulation_steps`" in finding(tmp_path)


@WITH
def test_one_step_of_the_scheduler_too_many(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, callbacks=[StepAgain(since=5, only=True)])
    assert "the scheduler made 1 step too many after step 6" in finding(tmp_path)


def test_a_scheduler_that_starts_a_step_ahead(model_path, tmp_path):
    class Ahead(TrainerCallback):
        def on_train_begin(self, args, state, control, lr_scheduler=None, **kwargs):
            lr_scheduler.step()

    run(model_path, tmp_path, callbacks=[Ahead()])
    assert "the scheduler is 1 step ahead: it was stepped before the first step" in finding(tmp_path)


def test_a_scheduler_that_falls_behind(model_path, tmp_path):
    class Skips(Trainer):
        def create_scheduler(self, *args, **kwargs):
            scheduler = super().create_scheduler(*args, **kwargs)
            step = scheduler.step
            scheduler.step = lambda: step() if self.state.global_step not in (4, 5) else None
            return scheduler

    run(model_path, tmp_path, cls=Skips)
    assert "the scheduler made 2 steps too few after step 5, and is behind by them since" in finding(tmp_path)


@WITH
@pytest.mark.parametrize("since", [0, 6])
def test_a_scheduler_that_is_never_stepped(model_path, tmp_path, log, since):
    class Never(Trainer):
        def create_scheduler(self, *args, **kwargs):
            scheduler = super().create_scheduler(*args, **kwargs)
            step = scheduler.step
            scheduler.step = lambda: step() if self.state.global_step < since else None
            return scheduler

    run(model_path, tmp_path, log=log, cls=Never)
    when = "any more from step 7 on" if since else "at all"
    assert f"the scheduler was not stepped {when}" in finding(tmp_path)


@WITH
def test_another_learning_rate_after_a_resume(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, **SAVING)
    run(model_path, tmp_path, log=log, resume=tmp_path / "checkpoint-6", learning_rate=PEAK / 4, **SAVING)
    found = finding(tmp_path)
    assert "resumed at step 6 with " in found
    assert f"learning_rate` {PEAK / 4:g}" in found or f"learning_rate {PEAK:g} -> {PEAK / 4:g}" in found
    assert audit(tmp_path).departs == 6


@WITH
def test_a_longer_run_after_a_resume(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, **SAVING)
    run(model_path, tmp_path, log=log, resume=tmp_path / "checkpoint-6", max_steps=24, **SAVING)
    found = finding(tmp_path)
    assert "off the plan at step 7," in found
    assert "another plan (steps 12 -> 24), and the first step after it still had the old one's rate" in found


@WITH
def test_a_resume_without_the_state_of_the_scheduler(model_path, tmp_path, log):
    run(model_path, tmp_path, log=log, **SAVING)
    for name in ("scheduler.pt", "optimizer.pt"):
        (tmp_path / "checkpoint-6" / name).unlink()
    run(model_path, tmp_path, log=log, resume=tmp_path / "checkpoint-6", **SAVING)
    assert "resumed at step 6, but the schedule began again from its first step" in finding(tmp_path)


@WITH
def test_a_resume_from_another_folder_with_another_learning_rate(model_path, tmp_path, log):
    run(model_path, tmp_path / "one", **SAVING)
    run(model_path, tmp_path / "two", resume=tmp_path / "one" / "checkpoint-6", learning_rate=PEAK / 4)
    assert "another peak: these are 4 times the plan's rates, so that the peak is 0.01, not 0.0025" in finding(
        tmp_path / "two"
    )


@pytest.mark.parametrize(
    ("scheduler", "cause"),
    [
        (
            lambda o: transformers.get_scheduler("cosine", o, WARMUP, 3 * STEPS),
            "rates of a run of 36 steps, 3 times the 12",
        ),
        (lambda o: transformers.get_scheduler("cosine", o, WARMUP, 31), "rates of a run of 31 steps"),
        (lambda o: transformers.get_scheduler("cosine", o, 0, STEPS), "rates with 0 steps of it, not 3"),
        (lambda o: transformers.get_scheduler("linear", o, WARMUP, STEPS), "these are the rates of 'linear'"),
        (lambda o: hf_sched.get_scheduler("cosine_floor", o, WARMUP, STEPS), "these are the rates of 'cosine_floor'"),
        (lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), "No known cause fits: something else set"),
    ],
    ids=["a horizon times 3", "another horizon", "another warmup", "another schedule", "one of ours", "of torch"],
)
def test_another_scheduler_than_the_one_asked_for(model_path, tmp_path, scheduler, cause):
    def optimizers(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        return optimizer, scheduler(optimizer)

    run(model_path, tmp_path, optimizers=optimizers)
    assert cause in finding(tmp_path)


def test_the_group_that_is_off_the_plan_is_named(model_path, tmp_path):
    class Meddle(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            optimizer.param_groups[1]["lr"] *= 0.5

    run(model_path, tmp_path, log=True, callbacks=[Meddle()], optimizers=two_groups)
    found = finding(tmp_path)
    assert found.startswith("group_1: off the plan from step 2 to 12")  # with a warmup the first step has 0
    assert "these are 1/2 times the plan's rates" in found
    # The Trainer's own log has only the first group, and that is right.
    (tmp_path / LEARNING_RATES).unlink()
    assert audit(tmp_path).ok


# What it reads.


def test_a_deepspeed_scheduler_is_named(model_path, tmp_path):
    run(model_path, tmp_path, log=True, callbacks=[StepAgain()])
    lines = (tmp_path / LEARNING_RATES).read_text().splitlines()
    session = json.loads(lines[0])
    session["session"]["facts"]["deepspeed"] = "WarmupDecayLR"
    (tmp_path / LEARNING_RATES).write_text("\n".join([json.dumps(session), *lines[1:]]))
    assert "the DeepSpeed configuration has a `scheduler` of its own ('WarmupDecayLR')" in finding(tmp_path)


def test_the_configuration_file_may_say_what_was_planned(model_path, tmp_path):
    run(model_path, tmp_path)
    (tmp_path / "training_args.bin").unlink()
    with pytest.raises(ValueError, match=r"says what was requested .* give the YAML file of the run with --config"):
        audit(tmp_path)
    text = f"lr_scheduler_type: cosine\nwarmup_steps: {WARMUP}\nlearning_rate: "
    (tmp_path / "right.yaml").write_text(text + f"{PEAK}\n")
    (tmp_path / "wrong.yaml").write_text(text + f"{PEAK * 2}\n")
    assert audit(tmp_path, config=tmp_path / "right.yaml").ok
    assert "these are 1/2 times the plan's rates" in finding(tmp_path, config=tmp_path / "wrong.yaml")


def test_reading_a_run_runs_none_of_its_code(model_path, tmp_path):
    run(model_path, tmp_path)

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "bang"), "w"))

    args = torch.load(tmp_path / "training_args.bin", weights_only=False)
    args.bomb = Bomb()
    torch.save(args, tmp_path / "training_args.bin")
    assert audit(tmp_path).ok
    assert not (tmp_path / "bang").exists()
    torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert (tmp_path / "bang").exists()  # it would have


def test_what_a_resume_left_behind_is_not_taken_for_the_run(model_path, tmp_path):
    run(model_path, tmp_path, **{**SAVING, "save_steps": 4})
    # From 4 on with another length; checkpoint-12 of the first run stays, and is further than the second run comes.
    other = {"max_steps": 11, "save_steps": 5, "lr_scheduler_kwargs": {"on_resume": "replace"}}
    shutil.rmtree(tmp_path / "checkpoint-12")
    run(model_path, tmp_path, resume=tmp_path / "checkpoint-4", **{**SAVING, **other})
    assert (tmp_path / "checkpoint-8").exists()
    report = audit(tmp_path)
    assert [plan.first for plan in report.record.plans] == [0, 4]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no run: it has no trainer_state.json, .* Give the `output_dir`"):
        audit(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 2, "max_')
    with pytest.raises(ValueError, match=r"trainer_state.json: is damaged"):
        audit(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"global_step": 2, "max_steps": 4, "log_history": []}')
    with pytest.raises(ValueError, match="logged no learning rate: train with `logging_steps: 1`"):
        audit(tmp_path)


def test_a_metric_has_no_plan(model_path, tmp_path):
    class Evaluating(Trainer):
        def __init__(self, *args, train_dataset, **kwargs):
            super().__init__(*args, train_dataset=train_dataset, eval_dataset=train_dataset[:4], **kwargs)

    given = {"lr_scheduler_type": "reduce_lr_on_plateau", "warmup_steps": 0, "eval_strategy": "steps", "eval_steps": 3}
    run(model_path, tmp_path, cls=Evaluating, **given)
    report = audit(tmp_path)
    assert report.ok
    assert any("follows a metric" in note for note in report.notes)


def test_the_picture_and_the_figures_for_machines(model_path, tmp_path):
    run(model_path, tmp_path, log=True, optimizers=two_groups, callbacks=[StepAgain()])
    report = audit(tmp_path)
    assert ["Likely cause: the scheduler was stepped twice" in found for found in report.findings] == [True, False]
    assert report.findings[1].endswith("Likely cause: the same.")
    report.picture(tmp_path / "audit.png")
    assert (tmp_path / "audit.png").stat().st_size > 10_000
    told = json.loads(json.dumps(report.as_dict()))
    assert (told["ok"], told["departs"], told["steps_made"]) == (False, 2, STEPS)
    assert told["deviation"] == pytest.approx(max(one.differences.max() for one in report.comparisons))
