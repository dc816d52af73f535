"""The page of the designer, without a browser: its curves, its figures, and the texts to copy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from transformers import HfArgumentParser, TrainingArguments

from hf_sched.cli import app
from hf_sched.designer import curves
from hf_sched.designer.controls import first_arguments
from hf_sched.designer.page import Page, labels_of
from hf_sched.designer.run_form import RunForm
from hf_sched.designer.snippets import as_flags, as_phases, as_python, as_yaml
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.reference.named_schedule import NamedSchedule
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.catalog import CATALOGUE

FORM = RunForm.read(
    {
        "learning_rate": "3e-4",
        "max_steps": "",
        "num_train_epochs": "2.5",
        "warmup_steps": "7%",
        "per_device_train_batch_size": "3",
        "gradient_accumulation_steps": "2",
        "num_processes": "2",
        "dataset_size": "1001",
    }
)
BUILTIN = [name for name in registry.BUILTIN_NAMES if name not in ("reduce_lr_on_plateau", "greedy")]


def designs(*schedules: NamedSchedule) -> list[dict]:
    return [{"id": n, "name": one.name, "arguments": dict(one.arguments)} for n, one in enumerate(schedules)]


def schedule_of(name: str) -> NamedSchedule:
    return NamedSchedule(name, first_arguments(name, FORM))


@pytest.mark.parametrize("name", [*CATALOGUE, *BUILTIN])
def test_plot_has_the_numbers_of_hf_sched_plan_to_the_last_digit(name, tmp_path):
    schedule = schedule_of(name)
    page = Page(designs(schedule), FORM)
    path = tmp_path / "copied.yaml"
    path.write_text(as_yaml(FORM, schedule))
    result = CliRunner().invoke(
        app, ["plan", str(path), "--kind", "trainer", "--num-processes", "2", "--dataset-size", "1001", "--json"]
    )
    planned = json.loads(result.output)
    drawn = page.figure.data[0]
    assert list(drawn.x) == list(range(planned["num_training_steps"])) and len(drawn.x) == 210
    assert list(drawn.y) == planned["curve"]
    assert (page.plan.epochs, page.plan.effective_batch) == (planned["epochs"], planned["effective_batch"])
    if name in BUILTIN:
        assert list(page.figure.data[1].x) == [0, 209]
        assert list(page.figure.data[1].y) == [planned["first_lr"], planned["last_lr"]]


@pytest.mark.parametrize("name", [*CATALOGUE, *BUILTIN])
def test_copied_flags_and_python_are_the_same_arguments(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schedule = schedule_of(name)
    words = as_flags(FORM, schedule).replace("\\\n", "")
    result = {}
    exec(as_python(FORM, schedule), result)
    import shlex

    (from_flags,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(shlex.split(words))
    for args in (from_flags, result["args"]):
        for argument, value in yaml.safe_load(as_yaml(FORM, schedule)).items():
            assert getattr(args, argument) == value


@pytest.mark.parametrize("name", CATALOGUE)
def test_phases_of_a_schedule_give_its_curve_again(name):
    schedule = schedule_of(name)
    plan = FORM.plan(schedule)
    text = as_phases(schedule, plan)
    assert Schedule.parse(text, num_training_steps=plan.num_training_steps) == plan.schedule
    typed = NamedSchedule("phases", {"phases": text})
    assert FORM.plan(typed).curve.tolist() == plan.curve.tolist()
    assert as_phases(typed, FORM.plan(typed)) == text


def test_own_warmup_in_phases_replaces_that_of_the_trainer():
    arguments = FORM.arguments(NamedSchedule("phases", {"phases": "warmup 5% | hold"}))
    assert arguments["warmup_steps"] == 0
    assert FORM.arguments(NamedSchedule("phases", {"phases": "hold"}))["warmup_steps"] == 0.07


def test_axes_count_epochs_tokens_and_hours():
    form = RunForm(max_steps=100, num_processes=2, dataset_size=160, tokens_per_sample=500, seconds_per_step=36)
    (curve,) = Page(designs(NamedSchedule("wsd")), form).curves
    last = np.array([99])
    ends = {axis: float(curve.positions(last, axis, form)[0]) for axis in curves.AXES}
    assert ends == {"Steps": 99, "Epochs": 9.9, "Tokens": 99 * 16 * 500, "Hours": 0.99}
    for axis, missing in (("Epochs", "dataset_size"), ("Tokens", "tokens_per_sample"), ("Hours", "seconds_per_step")):
        page = Page(designs(NamedSchedule("wsd")), RunForm(), axis=axis)
        assert page.problems == [f"**axis**: `{missing}` is required for the axis '{axis}'"]
        assert page.figure.layout.xaxis.title.text == "optimizer step"


def test_area_and_share_of_samples_below_a_tenth_of_the_peak():
    form = RunForm(learning_rate=1.0, max_steps=10, warmup_steps=0)
    plan = form.plan(NamedSchedule("phases", {"phases": "hold 5 | hold 3 at 0.5 | hold 2 at 0.05"}))
    assert curves.area(plan) == pytest.approx(5 + 1.5 + 0.1, rel=1e-15)
    assert curves.share_below_tenth(plan) == 0.2
    page = Page(designs(NamedSchedule("constant")), form)
    assert "| constant | 10 | 1 | 1 | 1 | 10 | 100.0% | 0.0% |" in page.table


def test_long_run_is_drawn_with_exact_rates_and_all_phase_ends():
    form = RunForm(max_steps=300_000, warmup_steps=1234)
    (curve,) = Page(designs(NamedSchedule("wsd", {"decay": 4321})), form).curves
    assert len(curve.steps) < 11_000
    assert {0, 1233, 1234, 300_000 - 4322, 300_000 - 4321, 299_999} <= set(curve.steps.tolist())
    assert curve.rates.tolist() == curve.plan.curve[curve.steps].tolist()


def test_wrong_argument_is_reported_beside_the_other_curves():
    wrong, right = NamedSchedule("wsd", {"decay": "120%"}), NamedSchedule("cosine_floor")
    page = Page(designs(wrong, right, NamedSchedule("greedy")), RunForm())
    assert [curve.label for curve in page.curves] == ["cosine_floor"]
    assert "**wsd:decay=120%**: `decay` must be" in page.problems[0]
    assert "greedy follows a metric" in page.problems[1]
    assert page.facts == "" and page.phases == ""


@pytest.mark.parametrize("field, text", [("learning_rate", "fast"), ("warmup_steps", "1ep"), ("num_processes", "0")])
def test_wrong_text_in_the_form_names_its_argument(field, text):
    with pytest.raises(ArgumentError) as caught:
        RunForm.read({field: text})
    assert caught.value.name == field


def test_equal_labels_are_numbered():
    assert labels_of(designs(*[NamedSchedule("wsd")] * 3)) == ["wsd", "wsd (2)", "wsd (3)"]


@pytest.mark.parametrize(
    "given", [{"max_steps": 70}, {"num_train_epochs": 1.5, "warmup_steps": 0.1}, {"max_length": 8}]
)
def test_form_of_a_configuration_plans_the_same_run(given):
    from hf_sched.plan import plan

    config = TrainingConfig("sft", {"lr_scheduler_type": "cosine_floor", "learning_rate": 1e-4, **given})
    planned = plan(config, dataset_size=333, num_processes=3)
    again = RunForm.of_config(config, planned).plan(NamedSchedule("cosine_floor"))
    assert again.curve.tolist() == planned.curve.tolist()
    assert (again.epochs, again.effective_batch) == (planned.epochs, planned.effective_batch)


def test_form_of_a_grpo_configuration_has_its_number_of_steps():
    from hf_sched.plan import plan

    config = TrainingConfig("grpo", {"num_generations": 4, "per_device_train_batch_size": 8})
    planned = plan(config, dataset_size=100)
    assert RunForm.of_config(config, planned).max_steps == planned.num_training_steps == 150
