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
from tests.helpers.catalog import temporary_registrations

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


def described(name: str) -> reference.Reference:
    return reference.describe(name)


def test_the_page_is_what_the_generator_writes():
    if make.page() != PAGE:
        ours, theirs = make.page().splitlines(), PAGE.splitlines()
        first = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(theirs))
        pytest.fail(f"docs/schedules.md is out of date from line {first + 1} on: {AGAIN}")


@pytest.mark.parametrize("name", [*NAMES, "shapes"])
def test_a_picture_is_of_the_present_curve(name):
    path = make.PICTURES / f"{name}.svg"
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing: {AGAIN}"
    panels = make.shape_panels() if name == "shapes" else make.schedule_panels(examples.schedule(described(name)))
    assert f"curves {make.digest(panels)}<" in path.read_text(encoding="utf-8"), f"{path.name} is out of date: {AGAIN}"
    assert path.stat().st_size < 40_000


def test_every_picture_belongs_to_a_schedule():
    assert {path.stem for path in make.PICTURES.iterdir()} == {*NAMES, "shapes"}


def test_the_picture_in_the_readme_is_of_the_present_curves():
    image = pytest.importorskip("PIL.Image")
    with image.open(make.README_PICTURE) as picture:
        drawn = picture.text["Description"]
    assert drawn == f"curves {make.digest(make.readme_panels())}", f"docs/schedules.png is out of date: {AGAIN}"


def test_pictures_are_reproducible(tmp_path):
    schedule = hf_sched.Schedule.parse("warmup 5 | hold 5 | decay 20 cosine | restart 10; floor 0.1")
    paths = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in paths:
        make.draw_schedule(schedule, path)
    one, two = (path.read_bytes() for path in paths)
    assert one == two
    assert f"curves {make.digest(make.schedule_panels(schedule))}<".encode() in one


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_follows_the_format(name):
    of = described(name)
    assert re.fullmatch(r"[A-Z].*\.", of.summary), f"{name}: the docstring must begin with a sentence, its summary"
    for field in ("formula", "source", "example"):
        assert getattr(of, field), f"{name}: the docstring needs a line `{field.title()}: ...`"
    stray = re.search(r"^[A-Z]\w*( \w+)?:(?= )", of.text, flags=re.MULTILINE)
    assert not stray, f"{name}: `{stray.group()}` is not a field of hf_sched.reference.description"
    text = f"{of.summary} {of.formula} {of.text}"
    missing = {a.name for a in of.arguments if not re.search(rf"\b{a.name}\b", text)} - {"floor_ratio", "min_lr"}
    assert not missing, f"{name}: neither formula nor text explains {missing}"
    assert all(argument.takes != "anything" for argument in of.arguments), (
        f"{name}: an argument has no known annotation"
    )
    for line in of.coming_from:
        assert line.there and line.here, f"{name}: a line `From {line.library}: ...` needs `theirs -> ours`"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_builds_as_it_stands(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = examples.schedule(described(name))
    assert schedule.num_training_steps == examples.STEPS
    assert f"```text\n{schedule}\n```" in PAGE
    assert hf_sched.Schedule.parse(str(schedule)) == schedule


MAPPINGS = [
    pytest.param(name, line.here, id=f"{name}-{line.library}-{number}")
    for name in NAMES
    for number, line in enumerate(described(name).coming_from)
]


@pytest.mark.parametrize(("name", "here"), MAPPINGS)
def test_the_translation_from_another_library_builds(name, here):
    # tests/hf_sched/schedules/test_parity.py compares the curves.
    kwargs = yaml.safe_load(here)
    assert isinstance(kwargs, dict), f"{name}: `{here}` must be a YAML mapping of lr_scheduler_kwargs"
    kwargs = {argument: 100 if value == "W" else value for argument, value in kwargs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a cycle that is cut off
        hf_sched.build(name, num_training_steps=examples.STEPS, **kwargs)


def yaml_blocks() -> list[Any]:
    paths = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    blocks = [
        pytest.param(block, id=f"{path.name}-{number}")
        for path in paths
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL))
        # test_launch_lines.py reads whole recipes with their commands.
        if "lr_scheduler_type" in block and "model_name_or_path" not in block
    ]
    assert len(blocks) > len(NAMES)
    return blocks


@pytest.mark.parametrize("block", yaml_blocks())
def test_a_yaml_example_trains(block, tmp_path):
    from transformers import TrainingArguments

    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], max_steps=examples.STEPS, **yaml.safe_load(block)
    )
    schedule = hf_sched.build(
        args.lr_scheduler_type.value,
        num_training_steps=args.max_steps,
        num_warmup_steps=args.get_warmup_steps(args.max_steps),
        **args.lr_scheduler_kwargs or {},
    )
    assert len(schedule.curve(peak=args.learning_rate)) == examples.STEPS


def test_every_schedule_has_a_section_and_a_line_in_the_contents():
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    assert headings[-len(NAMES) :] == NAMES
    assert re.findall(r"^- \[(\w+)\]\(#\1\): .*\.$", PAGE, flags=re.MULTILINE) == NAMES
    ours = {
        name for name in hf_sched.available() if registry.entry(name).build_phases.__module__.startswith("hf_sched.")
    }
    assert set(NAMES) == ours


def test_links_have_targets():
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", PAGE, flags=re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith("https://arxiv.org/abs/"):
            assert (DOCS / link).is_file(), link


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


def test_the_python_of_the_page_registers_a_schedule():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    with temporary_registrations():
        exec(code, {"hf_sched": hf_sched})
        assert str(hf_sched.build("trapezoid", num_training_steps=100)) == "hold 80 | decay 20"
