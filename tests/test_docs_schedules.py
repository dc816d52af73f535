"""docs/schedules.md is generated, up to date and complete, and its examples work."""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

import hf_sched
from hf_sched.reference import description as reference
from hf_sched.reference import examples
from hf_sched.schedules import registry
from hf_sched.schedules.shapes import FORMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
AGAIN = "run `python docs/make_schedules.py` and commit what it writes"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_schedules", DOCS / "make_schedules.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_generator()
PAGE = make.PAGE.read_text(encoding="utf-8")
NAMES = make.catalogue()


def test_the_page_is_what_the_generator_writes():
    if make.page() != PAGE:
        ours, theirs = make.page().splitlines(), PAGE.splitlines()
        first = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(theirs))
        pytest.fail(f"docs/schedules.md is out of date from line {first + 1} on: {AGAIN}")


def test_translations_are_what_the_generator_writes():
    assert make.TRANSLATIONS.read_text(encoding="utf-8") == make.translations(), AGAIN


@pytest.mark.parametrize("name", [*NAMES, "shapes"])
def test_a_picture_is_of_the_present_curve(name):
    path = make.PICTURES / f"{name}.svg"
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing: {AGAIN}"
    panels = (
        make.shape_panels() if name == "shapes" else make.schedule_panels(examples.schedule(reference.describe(name)))
    )
    assert f"curves {make.digest(panels)}<" in path.read_text(encoding="utf-8"), f"{path.name} is out of date: {AGAIN}"
    assert path.stat().st_size < 40_000
    assert {picture.stem for picture in make.PICTURES.iterdir()} == {*NAMES, "shapes"}


def test_the_picture_in_the_readme_is_of_the_present_curves():
    from PIL import Image

    with Image.open(make.README_PICTURE) as picture:
        drawn = picture.text["Description"]
    assert drawn == f"curves {make.digest(make.readme_panels())}", f"docs/schedules.png is out of date: {AGAIN}"


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_follows_the_format(name):
    of = reference.describe(name)
    assert re.fullmatch(r"[A-Z].*\.", of.summary), f"{name}: the docstring must begin with a sentence, its summary"
    for field in ("formula", "source", "example"):
        assert getattr(of, field), f"{name}: the docstring needs a line `{field.title()}: ...`"
    stray = re.search(r"^[A-Z]\w*( \w+)?:(?= )", of.text, flags=re.MULTILINE)
    assert not stray, f"{name}: `{stray.group()}` is not a field of hf_sched.reference.description"
    text = f"{of.summary} {of.formula} {of.text}"
    missing = {a.name for a in of.arguments if not re.search(rf"\b{a.name}\b", text)} - registry.COMMON.keys()
    assert not missing, f"{name}: neither formula nor text explains {missing}"
    assert all(argument.takes != "anything" for argument in of.arguments), f"{name}: unknown annotation"
    for line in of.coming_from:
        assert line.there and line.here, f"{name}: a line `From {line.library}: ...` needs `theirs -> ours`"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_builds_as_it_stands(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = examples.schedule(reference.describe(name))
    assert schedule.num_training_steps == examples.STEPS
    assert f"```text\n{schedule}\n```" in PAGE
    assert hf_sched.Schedule.parse(str(schedule)) == schedule


def yaml_blocks() -> list[str]:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md")))]
    blocks = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    # test_launch_lines.py reads whole recipes with their commands.
    return [block for block in blocks if "lr_scheduler_type" in block and "model_name_or_path" not in block]


@pytest.mark.parametrize("block", yaml_blocks())
def test_a_yaml_example_trains(block, tmp_path, monkeypatch):
    from transformers import TrainingArguments

    monkeypatch.chdir(tmp_path)
    Path("my_schedules.py").write_text(
        "import hf_sched\n\n\ndef trapezoid(*, cooldown: hf_sched.Duration = '20%'):\n"
        "    return [hf_sched.hold(), hf_sched.decay(cooldown)]\n",
        encoding="utf-8",
    )
    given = {"max_steps": examples.STEPS, **yaml.safe_load(block)}
    given.pop("time_budget", None)  # of the recipes
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], **given)
    schedule = hf_sched.build(
        args.lr_scheduler_type.value,
        num_training_steps=args.max_steps,
        num_warmup_steps=args.get_warmup_steps(args.max_steps),
        tokens_per_step=100,
        **args.lr_scheduler_kwargs or {},
    )
    assert len(schedule.curve(peak=args.learning_rate)) == args.max_steps


def test_every_schedule_has_a_section_and_a_line_in_the_contents():
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    assert headings[-len(NAMES) :] == NAMES
    assert re.findall(r"^- \[(\w+)\]\(#\1\): .*\.$", PAGE, flags=re.MULTILINE) == NAMES
    ours = {
        name for name in hf_sched.available() if registry.entry(name).build_phases.__module__.startswith("hf_sched.")
    }
    assert set(NAMES) == ours


def test_the_table_of_shapes_has_their_formulas():
    (table,) = re.findall(r"^\| shape \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    rows = [[cell.strip("` ") for cell in line.split("|")[1:4]] for line in table.splitlines()]
    words = [f"{name} {form.number.upper()}" if form.number else name for name, form in FORMS.items()]
    assert sorted(shape for shape, *_ in rows) == sorted(words)
    p = np.arange(1, 10) / 10
    number = 3.0  # of every shape that takes one; for `geometric` it is the logarithm of R
    names: dict[str, Any] = {**vars(math), "RATE": number, "POWER": number, "LENGTH": number, "R": math.exp(number)}
    names["E"] = 1 / math.sqrt(1 + number)
    for shape, warmup, decay in rows:
        form = FORMS[shape.split()[0]]
        assert (bool(warmup), bool(decay)) == (bool(form.rising), bool(form.falling)), shape
        for formula, function, u in ((warmup, form.rising, p), (decay, form.falling, 1 - p)):
            if formula:
                expected = [eval(formula, names | {"p": at}) for at in p]
                np.testing.assert_allclose(function(u, number), expected, rtol=1e-12, err_msg=shape)
