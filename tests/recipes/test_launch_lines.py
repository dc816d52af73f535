"""Every command in README, docs, configurations and launch files is parsed by the program that it calls.

The first line of a recipe's configuration launches it, and no launch configuration has unknown keys.
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

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from click.testing import CliRunner
from trl.scripts.vllm_serve import make_parser

from hf_sched.cli import app
from hf_sched.finetune import config
from hf_sched.finetune.dpo import DPO
from hf_sched.finetune.grpo import GRPO
from hf_sched.finetune.pipeline import argument_types
from hf_sched.finetune.sft import SFT
from tests.helpers.recipes import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
HEADED = [
    path
    for folder in ("recipes", "recipes/configs", "recipes/kubernetes", "recipes/slurm", "accelerate_configs")
    for path in sorted((ROOT / folder).glob("*.*"))
    if path.suffix in (".py", ".yaml", ".slurm")
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
    text = file.read_text(encoding="utf-8")
    comments = "\n".join(re.findall(r"^# ?(?!!)(.*)$", text.partition("\n\n")[0], flags=re.MULTILINE))
    head = text.split('"""')[1] if file.suffix == ".py" else comments
    return (line for line in joined(head) if line.startswith(COMMANDS))


LINES = [(file.relative_to(ROOT), line) for file in PAGES for line in commands_of_page(file)]
LINES += [(file.relative_to(ROOT), line) for file in HEADED for line in commands_of_head(file)]
# The configurations that the reader of docs/recipes.md writes.
WRITTEN_BY_READERS = re.findall(
    r"`(my_\w+\.yaml)`:\n\n```yaml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), re.DOTALL
)


class Parsed(Exception):
    """Raised in place of a program's work, once it has parsed its arguments."""


class Reader:
    """Parses a command with the program that it calls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.chdir(ROOT)
        # Models and data that an earlier command writes do not exist.
        check = config._check_paths
        monkeypatch.setattr(config, "_check_paths", lambda part: None if "runs/" in str(vars(part)) else check(part))
        for command in app.commands.values():
            monkeypatch.setattr(command, "callback", lambda **given: None)
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
        for file in re.findall(FILES, line):
            assert (ROOT / file).is_file(), file
        getattr(self, words[0].replace("-", "_"))(words[1:])

    def accelerate(self, words: list[str]) -> None:
        assert words[0] == "launch"
        args = launch_command_parser().parse_args(words[1:])
        if args.config_file:
            load_config_from_file(args.config_file)
        if args.training_script == "hf_sched":
            self.hf_sched(args.training_script_args)
            return
        kind = re.fullmatch(r"recipes/(\w+)\.py|hf_sched\.finetune\.(\w+)", args.training_script)
        assert kind, args.training_script
        self.recipe(kind[1] or kind[2], args.training_script_args)

    def recipe(self, kind: str, words: list[str]) -> None:
        recipe, args = RECIPES[kind](), [*words, "--use_cpu", "true"]
        config.parse(*argument_types(recipe), args=args)

    def python(self, words: list[str]) -> None:
        module = importlib.import_module(words[1])
        parse = argparse.ArgumentParser.parse_known_args

        def take(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
            _, unknown = parse(parser, args, namespace)
            assert not unknown, unknown
            raise Parsed

        with self.monkeypatch.context() as patch, pytest.raises(Parsed):
            patch.setattr(sys, "argv", [str(module.__file__), *words[2:]])
            patch.setattr(argparse.ArgumentParser, "parse_known_args", take)
            module.main()

    def hf_sched(self, words: list[str]) -> None:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        if words[0] in RECIPES:
            command = app.commands[words[0]]
            given = command.make_context(words[0], words[1:]).params
            self.recipe(words[0], ["--config", given["config"], *given["flags"]])

    def kubectl(self, words: list[str]) -> None:
        if "-f" in words:
            document = yaml.safe_load((ROOT / words[words.index("-f") + 1]).read_text())
            if document["kind"] == "TrainJob":
                self.accelerate(["launch", *document["spec"]["trainer"]["args"]])

    def sbatch(self, words: list[str]) -> None:
        parser = argparse.ArgumentParser(prog="sbatch")
        for name in ("nodes", "gpus-per-node"):
            parser.add_argument(f"--{name}", type=int, required=True)
        parser.add_argument("script")
        parser.add_argument("words", nargs=argparse.REMAINDER)
        args = parser.parse_args(words)
        assert args.script == "recipes/slurm/train.slurm"
        if args.words[0] == "--vllm":
            model, *flags = shlex.split(args.words[1])
            _, unknown = make_parser().parse_args_and_config(["--model", model, *flags], return_remaining_strings=True)
            assert not unknown  # trl passes these to vLLM unread
            del args.words[:2]
        launch_config, *recipe = args.words
        self.accelerate(["launch", "--config_file", launch_config, *recipe])


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return Reader(tmp_path, monkeypatch).read


@pytest.mark.parametrize(("file", "line"), LINES, ids=[f"{file}-{number}" for number, (file, _) in enumerate(LINES)])
def test_command_is_accepted(read, file, line):
    read(line)


@pytest.mark.parametrize(
    ("file", "command", "times"),
    [
        ("README.md", "hf-sched", 3),
        ("recipes/slurm/train.slurm", "sbatch", 2),
        ("recipes/kubernetes/train.yaml", "kubectl", 3),
        ("recipes/configs/smollm2_gsm8k_sft.yaml", "python", 1),
        ("recipes/sft.py", "accelerate", 1),
    ],
)
def test_commands_are_found(file, command, times):
    assert sum(str(found) == file and line.startswith(f"{command} ") for found, line in LINES) >= times


LAUNCH = "accelerate launch --config_file accelerate_configs/{}.yaml recipes/{}.py --config recipes/configs/{}.yaml {}"
SBATCH = "sbatch --nodes 2 --gpus-per-node 8 recipes/slurm/train.slurm {} accelerate_configs/ddp.yaml recipes/{}.py {}"
GRPO_CONFIG = "--config recipes/configs/qwen2.5-0.5b_gsm8k_grpo.yaml"


@pytest.mark.parametrize(
    "line",
    [
        LAUNCH.format("ddp", "sft", "qwen2.5-0.5b_gsm8k_sft", "--learning_rat 1e-5"),
        LAUNCH.format("ddp", "sft", "qwen2.5-0.5b_gsm8k_sft", "--num_generations 8"),  # of GRPO
        LAUNCH.format("ddp", "sft", "qwen2.5-0.5b_gsm8k_sftt", ""),
        LAUNCH.format("ddp --num_machine_s 2", "sft", "qwen2.5-0.5b_gsm8k_sft", ""),
        "python -m hf_sched.finetune.demo.sorting_task --output_di runs/demo/task",
        "hf-sched sft --config recipes/configs/demo_sft.yaml --learning_rat 1e-5",
        "hf-sched plan recipes/configs/demo_sft.yaml --dataset-sise 7473",
        SBATCH.format("", "grpo", f"{GRPO_CONFIG} --max_step 1"),
        SBATCH.format('--vllm "m --tensor_parallel 8"', "grpo", GRPO_CONFIG),
        "kubectl apply -f recipes/kubernetes/trains.yaml",
    ],
)
def test_command_with_a_typo_is_rejected(read, line):
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        read(line)


@pytest.mark.parametrize("path", [path for path in HEADED if path.parent.name == "configs"], ids=lambda path: path.stem)
def test_first_line_of_a_config_launches_it(path):
    launch = rf"accelerate launch --config_file {FILES} recipes/(\w+)\.py --config recipes/configs/{path.name}"
    found = re.fullmatch(launch, next(commands_of_head(path)))
    assert found and found[1] in path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "accelerate_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_launch_config_is_one_of_accelerate(path):
    load_config_from_file(str(path))  # rejects unknown keys, but not in nested mappings
    launch = yaml.safe_load(path.read_text())
    flags = vars(launch_command_parser().parse_args(["script.py"]))
    for part in ("deepspeed_config", "fsdp_config"):
        assert set(launch.get(part, {})) <= set(flags), path


@pytest.mark.parametrize("kind", RECIPES)
def test_script_is_short_and_calls_the_recipe(kind):
    lines = (ROOT / "recipes" / f"{kind}.py").read_text().splitlines()
    assert len(lines) <= 40
    assert f"from hf_sched.finetune.{kind} import main" in lines


def test_every_named_file_exists():
    missing = {
        f"{file.relative_to(ROOT)}: {named}"
        for file in (*PAGES, *HEADED)
        for named in re.findall(rf"(?<![\w/.]){FILES}", file.read_text(encoding="utf-8"))
        if not (ROOT / named).is_file()
    }
    assert not missing
