"""The pages of the documentation site: code runs, YAML is valid, commands and targets are complete, the site builds."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

import hf_sched
from hf_sched.cli import app
from tests.helpers.catalog import temporary_registrations

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md")
    if ".template" not in page.suffixes
}
PAGES.pop("space/README.md")  # a page of the Space, not of the site


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(page, "python")).replace('"out",', '"out", use_cpu=True,')
    with temporary_registrations():
        exec(compile(code, page, "exec"), {"__name__": "page", "hf_sched": hf_sched})


def test_rewards_in_yaml_blocks_load(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(completions, **kwargs):\n    return [0.0] * len(completions)\n"
    )
    from hf_sched.finetune.rewards import load_rewards

    configs = [yaml.safe_load(block) for block in blocks("recipes.md", "yaml")]
    loaded = [load_rewards(config["reward_funcs"]) for config in configs if "reward_funcs" in config]
    assert [(len(functions), weights) for functions, weights in loaded] == [(2, [1, 0.2]), (4, [1, 0.2, 1, 1])]


def test_grammar_commands_targets_and_files_are_as_listed():
    assert f"```text\n{hf_sched.GRAMMAR.strip()}\n```" in PAGES["schedules.md"]
    page = PAGES["commands.md"]
    assert set(app.commands) <= set(re.findall(r"`hf-sched ([a-z]+)`", page))
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert targets and set(re.findall(r"`make ([a-z-]+)", page)) == set(targets[1].split())
    for path in re.findall(
        r"`((?:hf_sched|tests|recipes|docs|benchmarks)/[\w./-]*|mkdocs\.yml)`", PAGES["contributing.md"]
    ):
        assert (ROOT / path).exists(), path


def test_site_builds_without_warnings_and_lists_every_page(tmp_path):
    from mkdocs.commands import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path))
    listed = set(re.findall(r": ([\w/-]+\.md)", yaml.safe_dump(config.nav)))
    assert listed == set(PAGES)
    build.build(config)
    html = (tmp_path / "api" / "schedules" / "index.html").read_text(encoding="utf-8")
    assert 'id="hf_sched.build"' in html
    assert not re.search(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)', html)  # nothing is fetched
    links = re.findall(r"\]\((.+?)\)", (tmp_path / "llms.txt").read_text(encoding="utf-8"))
    assert all((tmp_path / link / "index.html").is_file() for link in links), links
    guides = re.findall(
        r": ([\w-]+)\.md", yaml.safe_dump([part for part in config.nav if {"Tutorial", "How-to"} & set(part)])
    )
    assert {f"{name}/" for name in guides} <= set(links)


def test_each_section_of_pitfalls_ends_with_its_tests():
    for section in PAGES["pitfalls.md"].split("\n## ")[1:]:
        named = re.findall(r"`(tests/[\w./]+)`", section.partition("\nTests:")[2])
        assert named and all((ROOT / path).exists() for path in named), section
