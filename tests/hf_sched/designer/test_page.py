"""The page of the designer, without a browser: its curves, its figures, and the texts to copy."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest
import yaml
from transformers import HfArgumentParser, TrainingArguments

from hf_sched.designer.figure import AXES, step_size
from hf_sched.designer.other_programs import read_pasted
from hf_sched.designer.page import Page
from hf_sched.designer.run_form import RunForm
from hf_sched.finetune.arguments import RECIPE_ARGUMENTS
from hf_sched.integrations.builtin_schedules import FOLLOWING_A_METRIC
from hf_sched.reference.description import describe
from hf_sched.reference.examples import kwargs
from hf_sched.schedules import registry
from hf_sched.schedules.schedule import Schedule
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.catalog import CATALOGUE
from tests.helpers.command_line import printed

TEXTS = {
    "learning_rate": "3e-4",
    "max_steps": "",
    "num_train_epochs": "2.5",
    "warmup_steps": "0.07",
    "per_device_train_batch_size": "3",
    "gradient_accumulation_steps": "2",
    "num_processes": "2",
    "dataset_size": "1001",
}
FORM = RunForm.read(TEXTS)
BUILTIN = [name for name in registry.BUILTIN_NAMES if name not in FOLLOWING_A_METRIC]


def page_of(name: str, form: RunForm = FORM, /, **arguments: object) -> Page:
    return Page({0: (name, arguments)}, form)


@pytest.mark.parametrize("name", [*CATALOGUE, *BUILTIN])
def test_plot_and_copied_texts_are_those_of_hf_sched_plan_to_the_last_digit(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = page_of(name, **kwargs(describe(name)))
    path = tmp_path / "copied.yaml"
    path.write_text(FORM.as_yaml(page.schedule))
    words = ["--kind", "trainer", "--num-processes", 2, "--dataset-size", 1001, "--json"]
    planned = json.loads(printed("plan", path, *words))
    drawn, *ends = page.figure.data
    assert list(drawn.x) == list(range(planned["num_training_steps"])) and len(drawn.x) == 210
    assert list(drawn.y) == planned["curve"]
    if name in BUILTIN:
        assert [list(ends[0].x), list(ends[0].y)] == [[0, 209], [planned["first_lr"], planned["last_lr"]]]

    result = {}
    exec(FORM.as_python(page.schedule), result)
    flags = shlex.split(FORM.as_flags(page.schedule).replace("\\\n", ""))
    (from_flags,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(flags)
    for argument, value in yaml.safe_load(path.read_text()).items():
        assert getattr(from_flags, argument) == getattr(result["args"], argument) == value


@pytest.mark.parametrize("name", CATALOGUE)
def test_phases_of_a_schedule_give_its_curve_again(name):
    page = page_of(name, **kwargs(describe(name)))
    steps = page.plan.num_training_steps
    assert Schedule.parse(page.phases, num_training_steps=steps) == page.plan.schedule
    typed = page_of("phases", phases=page.phases)
    assert typed.plan.curve.tolist() == page.plan.curve.tolist()
    assert typed.phases == page.phases


@pytest.mark.parametrize("phases, warmup", [("warmup 5% | hold", 0), ("hold", 0.07)])
def test_own_warmup_in_phases_replaces_that_of_the_trainer(phases, warmup):
    assert FORM.arguments(page_of("phases", phases=phases).schedule)["warmup_steps"] == warmup


def test_axes_count_epochs_tokens_and_hours():
    form = RunForm(max_steps=100, num_processes=2, dataset_size=160, tokens_per_sample=500, seconds_per_step=36)
    page = page_of("wsd", form)
    assert [step_size(axis, page.plan, form) for axis in AXES] == [1, 0.1, 16 * 500, 0.01]
    assert page.facts == "100 optimizer steps of 16 samples · 10 epochs · 8e+05 tokens · 1 hours"
    for axis, missing in (("Epochs", "dataset_size"), ("Tokens", "tokens_per_sample"), ("Hours", "seconds_per_step")):
        assert Page({0: ("wsd", {})}, form, axis=axis).figure.layout.xaxis.title.text == AXES[axis]
        page = Page({0: ("wsd", {})}, RunForm(), axis=axis)
        assert page.problems == [f"**axis**: `{missing}` is required for the axis '{axis}'"]
        assert page.figure.layout.xaxis.title.text == "optimizer step"


def test_area_and_share_of_samples_below_a_tenth_of_the_peak():
    form = RunForm(learning_rate=1.0, max_steps=10, warmup_steps=0)
    page = page_of("phases", form, phases="hold 5 | hold 3 at 0.5 | hold 2 at 0.05")
    assert page.table.endswith("| 10 | 1 | 1 | 0.05 | 6.6 | 66.0% | 20.0% |")


def test_long_run_is_drawn_with_exact_rates_and_all_phase_ends():
    (curve,) = page_of("wsd", RunForm(max_steps=300_000, warmup_steps=1234), decay=4321).curves
    assert len(curve.steps) < 11_000
    assert {0, 1233, 1234, 300_000 - 4322, 300_000 - 4321, 299_999} <= set(curve.steps.tolist())
    assert curve.rates.tolist() == curve.plan.curve[curve.steps].tolist()


def test_wrong_argument_is_reported_beside_the_other_curves():
    page = Page({0: ("wsd", {"decay": "120%"}), 1: ("cosine_floor", {}), 2: ("greedy", {})}, RunForm())
    assert [curve.label for curve in page.curves] == ["cosine_floor"]
    assert "**wsd:decay=120%**: `decay` must be" in page.problems[0]
    assert "greedy follows a metric" in page.problems[1]
    assert page.facts == "" and page.phases == ""


@pytest.mark.parametrize("field, text", [("learning_rate", "fast"), ("warmup_steps", "1ep"), ("num_processes", "0")])
def test_wrong_text_in_the_form_names_its_argument(field, text):
    with pytest.raises(ArgumentError) as caught:
        RunForm.read({field: text})
    assert caught.value.name == field


def test_groups_and_hyperparameters_of_a_configuration_are_drawn_and_copied():
    given = {
        **{"learning_rate": 1e-4, "max_steps": 60, "lr_scheduler_type": "wsd", "beta": 0.04, "num_generations": 8},
        "lr_groups": {"lm_head": "0.1x", "layers.0": {"lr": 5e-5, "schedule": "hold 50% | decay"}},
        "schedules": {"beta": "hold 50% | decay to 0.25"},
    }
    _, form, design = read_pasted(yaml.safe_dump(given, sort_keys=False), extra=RECIPE_ARGUMENTS)
    page = Page({0: design, 1: ("linear_with_warmup", {})}, replace(form, learning_rate=2e-4))
    assert page.problems == []
    of_run, other, head, layer, beta = page.figure.data
    assert [one.name for one in (head, layer, beta)] == ["lm_head", "layers.0", "beta"]
    assert list(head.y) == page.plan.schedule.curve(peak=0.1 * 2e-4).tolist() and max(of_run.y) == 2e-4
    assert list(layer.y) == Schedule.parse("hold 50% | decay", num_training_steps=60).curve(peak=5e-5).tolist()
    values = Schedule.parse("hold 50% | decay to 0.25", num_training_steps=60).curve(peak=0.04)
    assert list(beta.customdata) == values.tolist() and list(beta.y) == (values / 0.04).tolist()
    assert (beta.yaxis, other.yaxis) == ("y2", "y")
    copied = yaml.safe_load(form.as_yaml(page.schedule))
    assert all(copied[key] == given[key] for key in ("lr_groups", "schedules", "beta"))
    assert "lr_groups" not in form.as_python(page.schedule)
