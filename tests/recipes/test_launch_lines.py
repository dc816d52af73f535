"""Every command that README, docs, configurations and scripts tell a user to type is taken apart by whom it is for."""

from __future__ import annotations

import argparse
import importlib
import json
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
from tests.helpers.recipes import ROOT
from tests.helpers.slurm_job import Job

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
HEADED = [
    *sorted((ROOT / "recipes").glob("*.py")),
    *sorted((ROOT / "recipes" / "configs").glob("*.yaml")),
    *sorted((ROOT / "recipes" / "kubernetes").glob("*.yaml")),
    *sorted((ROOT / "recipes" / "slurm").glob("*")),
    *sorted((ROOT / "accelerate_configs").glob("*.yaml")),
]
OURS = r"(?:accelerate_configs|benchmarks|docs|recipes|tests)/[\w./-]+\.(?:json|md|py|sh|slurm|yaml)\b"
COMMANDS = ("accelerate", "hf-sched", "kubectl", "python", "sbatch")


def joined(text: str) -> list[str]:
    """The lines, those that end in a backslash with what they go on in."""
    return re.sub(r"\\+\n\s*", " ", text).splitlines()


def of_page(page: Path) -> Iterator[str]:
    """The commands in a page's blocks of shell, and those in its text that name a file of ours."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", text, flags=re.DOTALL):
        for line in joined(block):
            if line.strip().startswith(COMMANDS):
                yield line.strip()
    for inline in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if inline.startswith(COMMANDS) and re.search(OURS, inline) and "..." not in inline and "…" not in inline:
            yield inline


def of_head(file: Path) -> Iterator[str]:
    """The commands in the comments, or the docstring, that a file begins with."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        head = text.split('"""')[1]
    else:
        head = "\n".join(re.findall(r"^# ?(?!!)(.*)$", text.partition("\n\n")[0], flags=re.MULTILINE))
    for line in joined(head):
        if line.strip().startswith(COMMANDS):
            yield line.strip()
        elif found := re.search(r"\b[Ff]irst: (python \S+\.py(?: --[^.]*)?)(?=$|\. )", line):
            yield found[1]


# Files that the README tells the reader to write.
MADE_BY_THE_READER = re.findall(
    r"`(my_\w+\.yaml)`:\n\n```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
LINES = [(file.relative_to(ROOT), line) for file in PAGES for line in of_page(file)]
LINES += [(file.relative_to(ROOT), line) for file in HEADED for line in of_head(file)]


class Parsed(Exception):
    """Raised in the place of a program's work, once it has taken its words."""


class Reader:
    """Has each command read by whom it is for; what that refuses is raised."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.chdir(ROOT)
        # Models and data that an earlier command makes are not there; all else is.
        check_paths = config._check_paths
        monkeypatch.setattr(
            config, "_check_paths", lambda part: None if "runs/" in str(vars(part)) else check_paths(part)
        )
        for command in app.commands.values():
            monkeypatch.setattr(command, "callback", lambda **given: None)
        # argparse takes the beginning of a flag for the flag, so that many a slip would not be one.
        init = argparse.ArgumentParser.__init__
        monkeypatch.setattr(
            argparse.ArgumentParser, "__init__", lambda *a, **given: init(*a, **{**given, "allow_abbrev": False})
        )

    def read(self, line: str) -> None:
        """One line as it is typed.

        Raises:
            AssertionError, SystemExit, ValueError: Whom it is for would refuse it.
        """
        for name, text in MADE_BY_THE_READER:
            (self.folder / name).write_text(text)
            line = line.replace(name, str(self.folder / name))
        words = shlex.split(line, comments=True)
        for file in re.findall(OURS, line):
            assert (ROOT / file).is_file(), file
        getattr(self, words[0].replace("-", "_"))(words[1:])

    def accelerate(self, words: list[str]) -> None:
        assert words[0] == "launch"
        args = launch_command_parser().parse_args(words[1:])
        load_config_from_file(args.config_file)
        self.python([args.training_script, *args.training_script_args])

    def python(self, words: list[str]) -> None:
        script, *given = words
        assert (ROOT / script).is_file(), script
        self.monkeypatch.syspath_prepend((ROOT / script).parent)
        module = importlib.import_module(Path(script).stem)
        assert Path(str(module.__file__)) == ROOT / script
        if script in ("recipes/sft.py", "recipes/grpo.py"):
            self._recipe(module, given)
        elif hasattr(module, "argparse"):
            self._program(module, given)
        else:
            assert not given, f"{script} takes no arguments"

    def hf_sched(self, words: list[str]) -> None:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output

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
        assert (ROOT / args.script).is_file(), args.script
        # What the script makes of them is read as well.
        job = Job(self.folder / "job").stand_in()
        ends = json.dumps([0] * args.nodes)
        status, output = job.run(args.nodes, *args.words, gpus=args.gpus_per_node, STATUS=ends, SERVER="works")
        assert status == 0, output
        for launched in job.launched():
            self.accelerate(launched["words"])
        if "--vllm" in args.words:
            _, unknown = make_parser().parse_args_and_config(
                (job.folder / "server.words").read_text().splitlines()[1:], return_remaining_strings=True
            )
            assert not unknown  # trl hands these to vLLM, unread

    def _recipe(self, module: Any, words: list[str]) -> None:
        def take(*types: type) -> None:
            config.parse(*types, args=[*words, "--use_cpu", "true"])
            raise Parsed

        self.monkeypatch.setattr(module, "parse", take)
        with pytest.raises(Parsed):
            module.main()

    def _program(self, module: Any, words: list[str]) -> None:
        parse_args = argparse.ArgumentParser.parse_args
        parse_known_args = argparse.ArgumentParser.parse_known_args
        reading = False

        def take(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
            nonlocal reading
            if reading:  # `parse_args` asks `parse_known_args`
                return parse_known_args(parser, args, namespace)
            reading = True
            parse_args(parser, args)
            raise Parsed

        with self.monkeypatch.context() as patch, pytest.raises(Parsed):
            patch.setattr(sys, "argv", [str(module.__file__), *words])
            for name in ("parse_args", "parse_known_args"):
                patch.setattr(argparse.ArgumentParser, name, take)
            module.main()


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    (tmp_path / "job").mkdir()
    return Reader(tmp_path, monkeypatch).read


@pytest.mark.parametrize(("file", "line"), LINES, ids=[f"{file}-{number}" for number, (file, _) in enumerate(LINES)])
def test_a_command_that_we_tell_to_type_is_taken(read, file, line):
    read(line)


def test_the_commands_are_found():
    found = [(str(file), line.split()[0]) for file, line in LINES]
    for config_file in (*(ROOT / "recipes" / "configs").glob("*.yaml"), *(ROOT / "accelerate_configs").glob("*.yaml")):
        assert (str(config_file.relative_to(ROOT)), "accelerate") in found
    for file, command, times in [
        ("README.md", "accelerate", 5),
        ("README.md", "hf-sched", 10),
        ("README.md", "python", 5),
        ("docs/smollm2.md", "accelerate", 3),
        ("docs/smollm2.md", "python", 4),
        ("recipes/slurm/train.slurm", "sbatch", 2),
        ("recipes/kubernetes/train.yaml", "kubectl", 3),
        ("recipes/configs/smollm2_gsm8k_sft.yaml", "python", 1),
        ("-m", "hf_sched.finetune.reports.report", "python", 3),
        ("recipes/sft.py", "accelerate", 1),
    ]:
        assert found.count((file, command)) >= times, (file, command)


SOUND = "accelerate launch --config_file accelerate_configs/ddp.yaml recipes/sft.py --config recipes/configs/{} {}"


@pytest.mark.parametrize(
    "line",
    [
        SOUND.format("qwen2.5-0.5b_gsm8k_sft.yaml", "--learning_rat 1e-5"),
        SOUND.format("qwen2.5-0.5b_gsm8k_sft.yaml", "--num_generations 8"),  # of GRPO
        SOUND.format("qwen2.5-0.5b_gsm8k_sftt.yaml", ""),
        SOUND.format("qwen2.5-0.5b_gsm8k_sft.yaml", "").replace("ddp", "dpp"),
        SOUND.format("qwen2.5-0.5b_gsm8k_sft.yaml", "").replace("recipes/sft", "recipes/stf"),
        SOUND.format("qwen2.5-0.5b_gsm8k_sft.yaml", "").replace("--config_file", "--num_machine_s 2 --config_file"),
        "python -m hf_sched.finetune.reports.report --run_s runs/demo/sft",
        "python recipes/reports.py --runs runs/demo/sft",
        "hf-sched merge runs/demo/sft",
        "python -m hf_sched.finetune.memory.command --config recipes/configs/demo_sft.yaml --gpu_memori 80GB",
        "python benchmarks/guard.py --quick",
        "hf-sched plan recipes/configs/demo_sft.yaml --dataset-sise 7473",
        "hf-sched plann recipes/configs/demo_sft.yaml",
        "hf-sched check recipes/configs/demo_sfft.yaml",
        "sbatch --node 2 --gpus-per-node 8 recipes/slurm/train.slurm accelerate_configs/ddp.yaml recipes/sft.py",
        "sbatch --nodes 2 --gpus-per-node 8 recipes/slurm/train.slurm accelerate_configs/ddp.yaml recipes/sft.py "
        "--config recipes/configs/qwen2.5-0.5b_gsm8k_sft.yaml --max_step 1",
        'sbatch --nodes 2 --gpus-per-node 8 recipes/slurm/train.slurm --vllm "m --tensor_parallel 8" '
        "accelerate_configs/ddp.yaml recipes/grpo.py --config recipes/configs/qwen2.5-0.5b_gsm8k_grpo.yaml",
        "kubectl apply -f recipes/kubernetes/trains.yaml",
    ],
)
def test_a_command_with_a_slip_in_it_is_not(read, line):
    with pytest.raises((AssertionError, SystemExit, ValueError)):
        read(line)


def test_every_file_of_ours_that_is_named_exists():
    missing = {
        f"{file.relative_to(ROOT)}: {named}"
        for file in (*PAGES, *HEADED)
        for named in re.findall(rf"(?<![\w/.]){OURS}", file.read_text(encoding="utf-8"))
        if not (ROOT / named).is_file()
    }
    assert not missing
