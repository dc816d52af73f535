"""A past run and the resumes of it, compared with real trainings."""

from __future__ import annotations

import pytest

import hf_sched
from hf_sched.designer.page import Page
from hf_sched.designer.past_run import checkpoints, requested
from hf_sched.designer.run_form import RunForm
from hf_sched.designer.start import Start
from tests.helpers.trainer import make

RUN = {"lr_scheduler_type": "wsd", "lr_scheduler_kwargs": {"decay": 4}, "max_steps": 12, "warmup_steps": 3}
NEW = {"lr_scheduler_type": "linear_with_warmup", "max_steps": 16, "warmup_steps": 3, "learning_rate": 8e-3}


@pytest.fixture(scope="module")
def run(model_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "wsd"
    log = hf_sched.LearningRateLog()
    trainer, recorder = make(model_path, folder, callbacks=[log], save_strategy="steps", save_steps=6, **RUN)
    trainer.train()
    return folder, [rates[0] for rates in recorder.used]


def test_actual_rates_are_those_that_the_optimizer_used(run):
    folder, used = run
    start = Start.of(folder)
    page = Page(start.designs, start.form, run=folder)
    actual = page.curves[1]
    assert (actual.label, actual.steps.tolist(), actual.rates.tolist()) == ("wsd (actual)", list(range(12)), used)
    assert page.curves[0].rates.tolist() == used
    assert page.problems == []


def test_start_on_a_run_requests_its_schedule(run):
    form, schedule = requested(run[0])
    assert (schedule.name, dict(schedule.arguments)) == ("wsd", {"decay": 4})
    assert (form.learning_rate, form.max_steps, form.warmup_steps) == (1e-2, 12, 3)
    assert checkpoints(run[0]) == ["checkpoint-6", "checkpoint-12"]


@pytest.mark.parametrize("policy", ["keep", "replace", "continue", "rewarm"])
def test_resume_trains_at_the_drawn_rates(policy, run, model_path, tmp_path):
    folder, _ = run
    form = RunForm(learning_rate=8e-3, max_steps=16, warmup_steps=3)
    new = [{"id": 0, "name": "linear_with_warmup", "arguments": {}}]
    page = Page(new, form, run=folder, checkpoint="checkpoint-6")
    (drawn,) = (one.curve for one in page.policies if one.policy == policy)
    trainer, recorder = make(model_path, tmp_path, **NEW, lr_scheduler_kwargs={"on_resume": policy})
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
    assert drawn.steps.tolist() == list(range(6, 16))
    assert drawn.rates.tolist() == [rates[0] for rates in recorder.used]
    assert f"| `{policy}` | {drawn.rates[0]:.6g} |" in page.policies_table


def test_policy_that_is_not_possible_says_why(run):
    new = [{"id": 0, "name": "cosine_restarts", "arguments": {}}]
    page = Page(new, RunForm(max_steps=40, warmup_steps=3), run=run[0], checkpoint="checkpoint-6")
    assert (
        "| `continue` | not possible |" in page.policies_table and "rises again in the restart" in page.policies_table
    )
    builtin = Page([{"id": 0, "name": "cosine", "arguments": {}}], RunForm(), run=run[0], checkpoint="checkpoint-6")
    assert builtin.policies_table.count("needs a schedule of hf_sched") == 4


def test_folder_that_is_no_run_is_reported(tmp_path):
    page = Page([{"id": 0, "name": "wsd", "arguments": {}}], RunForm(), run=tmp_path)
    assert len(page.curves) == 1 and "is not a run" in page.problems[0]
