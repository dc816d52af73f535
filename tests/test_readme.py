"""The README's code and commands work as written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

import hf_sched
from hf_sched.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_it_is_short():
    assert len(README.splitlines()) <= 160
    assert len(README.split()) <= 1200


def test_python_blocks_run():
    code = "\n".join(blocks("python")) + "\nassert 'trapezoid' in hf_sched.available()"
    code = code.replace('TrainingArguments("out"', 'TrainingArguments("out", use_cpu=True')
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_commands_that_need_no_run_succeed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hf-sched ")]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    of_runs = {"run", "cooldown", "design", "init", "sft", "sweep"}
    assert {"list", "show", "recommend", "plot", "plan", "check", *of_runs} == {words[0] for words in commands}
    for words in commands:
        if words[0] in of_runs or {"runs/demo/grpo", "out"} & set(words):
            continue  # these need a run or start one; other tests execute them
        words = [str(tmp_path / word) if word == "curves.png" else word for word in words]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "curves.png").is_file()


def test_table_lists_schedules_of_the_catalog_once():
    section = README.partition("## Schedules")[2].partition("## ")[0]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", section, flags=re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert len(named) == len(set(named)) >= 18
    assert set(named) <= set(hf_sched.available())


def test_links_pictures_and_make_targets_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
