"""What the README tells a newcomer to type works as written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_its_python_runs():
    code = "\n".join(blocks("python")) + "\nprint(schedule.lr(999, peak=2e-5), 'trapezoid' in hf_sched.available())"
    code = code.replace('TrainingArguments("out"', 'TrainingArguments("out", use_cpu=True')  # a test has no GPU to find
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed, values = done.stdout.strip().splitlines()
    assert f"# {printed}" in README
    assert values == "2.0000000000000003e-06 True"


def test_the_launcher_starts_in_the_environment_of_the_tests():
    # `make demo` uses what `make test` installed: timm without torchvision, say, would stop Accelerate's command.
    launcher = Path(sys.executable).with_name("accelerate")
    ended = subprocess.run([launcher, "launch", "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_its_commands_do_what_it_says(tmp_path, monkeypatch):
    import shlex

    from click.testing import CliRunner

    from hf_sched.cli import app

    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hf-sched ")]
    typed = [shlex.split(line, comments=True)[1:] for line in lines]
    # What needs a run is tried elsewhere.
    commands = [words for words in typed if words[0] not in ("run", "cooldown") and "runs/demo/grpo" not in words]
    assert [words[0] for words in commands] == ["list", "show", "plot", "plan", "check"]
    for words in commands:
        words = [str(tmp_path / word) if word == "curves.png" else word for word in words]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        if words[0] == "plan":  # as the README shows it
            assert all(line.rstrip() in README for line in result.output.splitlines()[:10])
    assert (tmp_path / "curves.png").is_file()
    assert [words[1] for words in typed if words[0] == "run"] == ["trl", "accelerate", "llamafactory-cli", "--import"]


def test_its_table_names_schedules_that_there_are_once():
    from hf_sched import available

    section = README.partition("## The schedules")[2].partition("## ")[0]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| [a-zA-Z].*\|$", section, flags=re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert len(named) == len(set(named)) >= 18
    assert set(named) <= set(available())


def test_its_schedules_in_yaml_build():
    import hf_sched

    schedules = [requested for requested in map(yaml.safe_load, blocks("yaml")) if "lr_scheduler_type" in requested]
    assert schedules
    for requested in schedules:
        hf_sched.build(
            requested["lr_scheduler_type"], num_training_steps=100, **requested.get("lr_scheduler_kwargs", {})
        )


def test_its_rewards_are_rewards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)  # another test has one of its own
    (tmp_path / "my_rewards.py").write_text(
        "def brevity(completions, **kwargs):\n    return [0.0 for _ in completions]\n"
    )
    from hf_sched.finetune.rewards import load_rewards

    found = []
    for requested in map(yaml.safe_load, blocks("yaml")):
        if "reward_funcs" in requested:
            rewards, weights = load_rewards(requested["reward_funcs"])
            found.append(([reward.__name__ for reward in rewards], weights))
    assert found == [
        (["accuracy", "answer_format"], [1, 0.2]),
        (["accuracy", "answer_format", "repetition_penalty", "brevity"], [1, 0.2, 1, 1]),
    ]


def test_its_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_accelerate_config_says_when_to_take_it_and_how():
    configs = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
    assert {path.stem for path in configs} == {"cpu_2proc", "single_gpu", "ddp", "fsdp2", "zero2", "zero3"}
    for path in configs:
        when, how, *_ = path.read_text(encoding="utf-8").splitlines()
        assert when.startswith("# ")
        words = how.removeprefix("# ").split()
        assert words[:4] == ["accelerate", "launch", "--config_file", f"accelerate_configs/{path.name}"]
        assert all((ROOT / word).is_file() for word in words if word.endswith((".yaml", ".py")))
        assert "scheduler" not in yaml.safe_load(path.read_text(encoding="utf-8")).get("deepspeed_config", {})
