"""docs/SKILL.md: its `--json` commands run, and their output has the keys that the page names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hf_sched.cli import app

PAGE = (Path(__file__).parents[1] / "docs" / "SKILL.md").read_text(encoding="utf-8")
HEADER, SECTIONS = yaml.safe_load(PAGE.split("---")[1]), PAGE.split("\n## ")[1:]
JSON_SECTIONS = [section for section in SECTIONS if re.search(r"^hf-sched .* --json$", section, re.MULTILINE)]


def keys(value: Any) -> Iterator[str]:
    """The keys of all mappings inside a JSON value."""
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(one)
    yield from value if isinstance(value, dict) else ()


def test_header_names_the_skill_and_when_to_use_it():
    assert HEADER["name"] == "hf-sched"
    assert 50 < len(HEADER["description"]) < 1024
    assert len(JSON_SECTIONS) == 4


@pytest.mark.parametrize("section", JSON_SECTIONS, ids=lambda section: section.splitlines()[0])
def test_json_has_the_keys_that_the_page_names(section, run_recipe, task, tmp_path):
    run = run_recipe("sft", max_steps=2, lr_scheduler_type="cosine_floor")
    config = tmp_path / "my_sft.yaml"
    wrong = {"model_name_or_path": str(task / "model"), "dataset_name": str(task / "sft"), "max_steps": 9, "max_len": 8}
    config.write_text(yaml.safe_dump(wrong))
    found: set[str] = set()
    for line in re.findall(r"^hf-sched (.* --json)$", section, re.MULTILINE):
        words = [
            {"my_sft.yaml": str(config), "runs/my_sft": str(run.folder)}.get(word, word) for word in shlex.split(line)
        ]
        found.update(keys(json.loads(CliRunner().invoke(app, words).stdout)))
    prose = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
    named = set(re.findall(r"`([a-z_]+)`", prose)) - set(app.commands)
    assert named and named <= found
