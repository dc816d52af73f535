"""Every command in README, docs, configurations and launch files is parsed by the program that it calls.

No launch configuration has unknown keys, and every file that a page names exists.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from click.testing import CliRunner
from trl.scripts.vllm_serve import make_parser

from hf_sched.cli import app
from hf_sched.finetune import check, config
from hf_sched.finetune.dpo import DPO
from hf_sched.finetune.grpo import GRPO
from hf_sched.finetune.pipeline import argument_types
from hf_sched.finetune.sft import SFT
from tests.helpers.recipes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
HEADED = [
    path
    for pattern in ("recipes/**/*.py", "recipes/**/*.yaml", "recipes/**/*.slurm", "accelerate_configs/*.yaml")
    for path in sorted(ROOT.glob(pattern))
]
FILES = r"(?:accelerate_configs|benchmarks|docs|recipes|tests)/[\w./-]+\.(?:json|md|py|sh|slurm|yaml)\b"
COMMANDS = ("accelerate ", "hf-sched ", "kubectl ", "python -m ", "sbatch ")
RECIPES = {recipe.kind: recipe for recipe in (SFT, GRPO, DPO)}


def joined(text: str) -> list[str]:
    """Split a text into lines, each with those that a backslash continues."""
    return [line.strip() for line in re.sub(r"\\+\n\s*", " ", text).splitlines()]


def commands_of_page(page: Path) -> Iterator[str]:
    """Commands in shell blocks, and those in the text that name a file of the repository."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", text, flags=re.DOTALL):
        yield from (line for line in joined(block) if line.startswith(COMMANDS))
    for inline in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if inline.startswith(COMMANDS) and re.search(FILES, inline) and "..." not in inline and "…" not in inline:
            yield inline


def commands_of_head(file: Path) -> Iterator[str]:
    """Commands in the comments or the docstring at the top of a file."""
    head = file.read_text(encoding="utf-8").split("\n\nfrom ")[0].split("\nset ")[0]
    return (line for line in joined(re.sub(r"(?m)^# ?", "", head)) if line.startswith(COMMANDS))


LINES = [(file.relative_to(ROOT), line) for file in PAGES for line in commands_of_page(file)]
LINES += [(file.relative_to(ROOT), line) for file in HEADED for line in commands_of_head(file)]
# The configurations that the readers of these pages write.
WRITTEN_BY_READERS = [
    written
    for page in ("first-run.md", "recipes.md")
    for written in re.findall(
        r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL
    )
]


class Reader:
    """Parses a command with the program that it calls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.chdir(ROOT)
        # Models and data that an earlier command writes do not exist.
        is_missing = check.is_missing_path
        monkeypatch.setattr(check, "is_missing_path", lambda name: "runs/" not in str(name) and is_missing(name))
        for command in app.commands.values():
            monkeypatch.setattr(command, "callback", lambda **given: None)
            for parameter in command.params:
                if isinstance(parameter.type, click.Path):
                    monkeypatch.setattr(parameter.type, "exists", False)
        # argparse accepts the beginning of a flag, so many a typo would pass.
        init = argparse.ArgumentParser.__init__
        monkeypatch.setattr(
            argparse.ArgumentParser, "__init__", lambda *args, **given: init(*args, **{**given, "allow_abbrev": False})
        )

    def read(self, line: str) -> None:
        """Parse one line; raise whatever its program raises."""
        for name, text in WRITTEN_BY_READERS:
            (self.folder / name).write_text(text)
            line = re.sub(rf"(?<![\w/]){name}", str(self.folder / name), line)
        words = shlex.split(line, comments=True)
        getattr(self, words[0].replace("-", "_"))(words[1:])

    def accelerate(self, words: list[str]) -> None:
        assert words[0] == "launch"
        args = launch_command_parser().parse_args(words[1:])
        if args.config_file:
            load_config_from_file(args.config_file)
        if args.training_script == "hf_sched":
            return self.hf_sched(args.training_script_args)
        kind = re.fullmatch(r"(?:recipes/|hf_sched\.finetune\.)(\w+?)(?:\.py)?", args.training_script)[1]
        self.recipe(kind, args.training_script_args)

    def recipe(self, kind: str, words: list[str]) -> None:
        recipe, args = RECIPES[kind](), [*words, "--use_cpu", "true"]
        config.check_arguments(kind, args)
        config.parse(*argument_types(recipe), args=args)

    def python(self, words: list[str]) -> None:
        module = importlib.import_module(words[1])
        parse = argparse.ArgumentParser.parse_known_args

        def take(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
            assert not parse(parser, args, namespace)[1]
            raise InterruptedError  # in place of the program's work

        with self.monkeypatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(sys, "argv", [str(module.__file__), *words[2:]])
            patch.setattr(argparse.ArgumentParser, "parse_known_args", take)
            module.main()

    def hf_sched(self, words: list[str]) -> None:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        if words[0] in (*RECIPES, "sweep"):
            command = app.commands[words[0]]
            given = command.make_context(words[0], words[1:]).params
            kind = "sft" if words[0] == "sweep" else words[0]
            self.recipe(kind, ["--config", given["config"], *given["flags"]])

    def kubectl(self, words: list[str]) -> None:
        if "-f" in words:
            document = yaml.safe_load((ROOT / words[words.index("-f") + 1]).read_text())
            if document["kind"] == "TrainJob":
                self.accelerate(["launch", *document["spec"]["trainer"]["args"]])

    def sbatch(self, words: list[str]) -> None:
        words = words[words.index("recipes/slurm/train.slurm") + 1 :]
        if words[0] == "--vllm":
            model, *flags = shlex.split(words[1])
            _, unknown = make_parser().parse_args_and_config(["--model", model, *flags], return_remaining_strings=True)
            assert not unknown  # trl passes these to vLLM unread
            del words[:2]
        self.accelerate(["launch", "--config_file", *words])


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return Reader(tmp_path, monkeypatch).read


@pytest.mark.parametrize(("file", "line"), LINES, ids=[f"{file}-{number}" for number, (file, _) in enumerate(LINES)])
def test_command_is_accepted_and_an_unknown_flag_rejected(read, file, line):
    read(line)
    if not re.match(r"kubectl|.*hf.sched run", line):  # what follows belongs to another program
        with pytest.raises((AssertionError, SystemExit, ValueError)):
            read(f"{line.partition(' # ')[0]} --no_such_flag 1")


def test_commands_of_each_kind_are_found():
    assert {line.split()[0] for _, line in LINES} == {command.split()[0] for command in COMMANDS}


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_launch_config_is_one_of_accelerate(path):
    load_config_from_file(str(path))  # rejects unknown keys, but not in nested mappings
    launch = yaml.safe_load(path.read_text())
    flags = vars(launch_command_parser().parse_args(["script.py"]))
    for part in ("deepspeed_config", "fsdp_config"):
        assert set(launch.get(part, {})) <= set(flags), path


def test_every_named_file_exists():
    missing = {
        f"{file.relative_to(ROOT)}: {named}"
        for file in (*PAGES, *HEADED)
        for named in re.findall(rf"(?<![\w/.]){FILES}", file.read_text(encoding="utf-8"))
        if not (ROOT / named).is_file()
    }
    assert not missing
