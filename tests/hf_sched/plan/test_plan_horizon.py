"""What `hf-sched plan`, `check`, `plot` and the designer say about horizons and durations in samples and tokens."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

import hf_sched
from hf_sched import DurationUnknown
from hf_sched.check import check
from hf_sched.cli import app
from hf_sched.plan import plan
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.plots import figures

RUN = {"max_steps": 100, "learning_rate": 1e-3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


def config(kind: str = "sft", lr_scheduler_type: str = "cosine_floor", /, **kwargs: Any) -> TrainingConfig:
    schedule = {"lr_scheduler_type": lr_scheduler_type, "lr_scheduler_kwargs": kwargs, "warmup_steps": 0.1}
    return TrainingConfig(kind, {**RUN, **schedule})


AT_STEP_100 = (
    "The run ends at step 100 of the horizon of 200, at a learning rate of 0.0006281, above the end level 0.0001."
)


@pytest.mark.parametrize(
    ("horizon", "note"),
    [
        (
            200,
            AT_STEP_100,
        ),
        ("0.5x", "The horizon ends at step 50: the learning rate stays at 0.0001 for 50 steps."),
        (100, None),
    ],
)
def test_plan_and_check_say_where_a_run_ends_on_its_horizon(horizon, note):
    planned = plan(config(horizon=horizon))
    expected = hf_sched.build(
        "cosine_floor", num_training_steps=100, num_warmup_steps=planned.num_warmup_steps, horizon=horizon
    )
    assert planned.num_warmup_steps == expected.horizon // 10
    assert (planned.schedule, planned.curve.tolist()) == (expected, expected.curve(peak=1e-3).tolist())
    assert [text for text in planned.notes if "horizon" in text] == [note] * (note is not None)
    report = check(config(horizon=horizon))
    assert report.ok and [one.message for one in report.findings if "horizon" in one.message] == [note] * bool(note)


def test_check_reports_a_wrong_horizon_and_a_warmup_that_is_longer():
    (found,) = check(config(horizon="2.5")).errors
    assert (found.key, found.message[:30]) == ("lr_scheduler_kwargs.horizon", "must be steps (2000), a multip")
    given = {**config(horizon=40).given, "warmup_steps": 50}
    assert "is a warmup of 50 steps in a run of 40" in check(TrainingConfig("sft", given)).errors[0].message
    given["lr_scheduler_kwargs"] = {"horizon": 400}
    assert check(TrainingConfig("sft", {**given, "max_steps": 20})).ok


def test_samples_are_those_of_the_effective_batch_and_tokens_need_their_number():
    samples = config("sft", "wsd", decay="320 samples")
    assert str(plan(samples, num_processes=2).schedule) == "warmup 10 | hold 70 | decay 20 1-sqrt"
    assert check(samples, num_processes=2).not_judged == ()
    tokens = config("sft", "wsd", decay="5k tok", horizon="50k tok")
    given = {"num_processes": 2, "tokens_per_sample": 31.25}
    assert str(plan(tokens, **given).schedule) == "warmup 10 | hold 80 | decay 10 1-sqrt"
    assert check(tokens, **given).not_judged == ()
    needed = r"`horizon` is in tokens \(50000tok\), but the data are not tokenized yet: give `--tokens-per-sample N`"
    with pytest.raises(DurationUnknown, match=needed):
        plan(tokens)
    (reason,) = check(tokens).not_judged
    assert (
        "`horizon` is in tokens (50000tok), but the data are not tokenized yet: give `--tokens-per-sample N`" in reason
    )
    with pytest.raises(DurationUnknown, match="but the completions are generated in training: write steps or samples"):
        plan(TrainingConfig("grpo", {**tokens.given, "num_generations": 4}), tokens_per_sample=31.25)
    # The designer knows the tokens of its form.
    from hf_sched.designer.run_form import RunForm
    from hf_sched.reference.named_schedule import NamedSchedule

    form = RunForm(max_steps=100, warmup_steps=0, per_device_train_batch_size=16, tokens_per_sample=31.25)
    assert str(form.plan(NamedSchedule("wsd", {"decay": "5k tok"})).schedule) == "hold 90 | decay 10 1-sqrt"


def test_commands_show_a_horizon_in_one_text(tmp_path):
    for command in (["show", "wsd:horizon=2000"], ["plot", "wsd:horizon=500", "--steps", "200", "--warmup", "10%"]):
        assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    picture = tmp_path / "plot.png"
    CliRunner().invoke(app, ["plot", "hold | decay 80%; horizon 2x", "-o", str(picture)], catch_exceptions=False)
    assert picture.is_file()
    _, (ax,) = figures.new_figure(1)
    figures.shade_phases(ax, hf_sched.build("hold | decay 80%; horizon 2x", num_training_steps=1000))
    assert [patch.get_x() + patch.get_width() for patch in ax.patches] == [399.5, 999.5]


def test_the_designer_draws_a_run_that_ends_before_its_horizon():
    pytest.importorskip("gradio")
    from hf_sched.designer.page import Page
    from hf_sched.designer.run_form import RunForm

    page = Page({1: ("cosine_restarts", {"horizon": "3x"})}, RunForm(max_steps=50, warmup_steps=0))
    assert page.problems == [] and len(page.plan.curve) == 50
    assert page.phases.endswith("; horizon 150")
    assert max(shape.x1 for shape in page.figure.layout.shapes) == 50
