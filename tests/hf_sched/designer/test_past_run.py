"""A past run and the resumes of it, compared with real trainings."""

from __future__ import annotations

import pytest

import hf_sched
from hf_sched.designer.page import Page, requested
from hf_sched.designer.run_form import RunForm
from tests.helpers.trainer import make

RUN = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": 4}, "max_steps": 12, "warmup_steps": 3}
NEW = {"max_steps": 16, "warmup_steps": 3, "learning_rate": 8e-3}


@pytest.fixture(scope="module")
def run(model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "wsd"
    log = hf_sched.LearningRateLog()
    trainer, recorder = make(model_path, folder, callbacks=[log], save_strategy="steps", save_steps=6, **RUN)
    trainer.train()
    return folder, [rates[0] for rates in recorder.used]


def test_past_run_shows_what_it_requested_and_what_the_optimizer_used(run):
    folder, used = run
    form, design = requested(folder)
    assert (design, form.learning_rate, form.max_steps, form.warmup_steps) == (("wsd", {"decay": 4}), 1e-2, 12, 3)
    planned, actual = Page({0: design}, form, run=folder).curves
    assert (actual.label, actual.steps.tolist(), actual.rates.tolist()) == ("wsd (actual)", list(range(12)), used)
    assert planned.rates.tolist() == used


@pytest.mark.parametrize("policy", ["keep", "replace", "continue", "rewarm"])
def test_resume_trains_at_the_drawn_rates(policy, run, model_path, tmp_path):
    folder, _ = run
    page = Page({0: ("linear_with_warmup", {})}, RunForm(**NEW), run=folder, checkpoint="checkpoint-6")
    (drawn,) = (curve for curve in page.curves if curve.label == f"on_resume: {policy}")
    new = {**NEW, "lr_scheduler_type": "linear_with_warmup", "lr_scheduler_kwargs": {"on_resume": policy}}
    trainer, recorder = make(model_path, tmp_path, **new)
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
    assert drawn.steps.tolist() == list(range(6, 16))
    assert drawn.rates.tolist() == [rates[0] for rates in recorder.used]
    assert (f"`{policy}`", f"{drawn.rates[0]:.6g}") in [row[:2] for row in page.policies]


def test_policy_that_is_not_possible_says_why(run):
    form, past = RunForm(max_steps=40, warmup_steps=3), {"run": run[0], "checkpoint": "checkpoint-6"}
    (row,) = (row for row in Page({0: ("cosine_restarts", {})}, form, **past).policies if row[0] == "`continue`")
    assert row[1] == "not possible" and "rises again in the restart" in row[2]
    assert "is drawn for schedules of hf_sched only" in Page({0: ("cosine", {})}, form, **past).problems[0]


def test_folder_that_is_no_run_is_reported(tmp_path):
    page = Page({0: ("wsd", {})}, RunForm(), run=tmp_path)
    assert len(page.curves) == 1 and "is not a run" in page.problems[0]
