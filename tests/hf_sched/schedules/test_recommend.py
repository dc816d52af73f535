"""Recommendations: they build, follow their rules, and agree with docs/choosing.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import hf_sched
from hf_sched import ArgumentError
from hf_sched.cli import app
from hf_sched.schedules.recommend import SHORT, TASKS, recommend

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
LENGTHS = (None, 1, 2, 50, SHORT - 1, SHORT, 1_000_000)
UNKNOWN_LENGTH = 10_000


@pytest.mark.parametrize(("task", "length"), [(task, length) for task in TASKS for length in LENGTHS])
def test_a_recommendation_builds_and_prints_its_reason_and_sources(task: str, length: int | None) -> None:
    choice, total = recommend(task=task, num_training_steps=length), length or UNKNOWN_LENGTH
    arguments = choice.training_arguments()
    assert list(arguments) == ["lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"]
    assert json.loads(json.dumps(arguments)) == yaml.safe_load(yaml.safe_dump(arguments)) == arguments
    assert type(choice.warmup_steps) is int and 0 <= choice.warmup_steps < total
    run = {"num_training_steps": total, "num_warmup_steps": choice.warmup_steps}
    schedule = hf_sched.build(choice.lr_scheduler_type, **run, **choice.lr_scheduler_kwargs)
    assert schedule.lr(max(choice.warmup_steps - 1, 0), peak=1.0) == 1.0
    if total > 2:  # two steps are all warmup and end
        end = {"phases": 1.0, "exponential": 0.01}.get(choice.lr_scheduler_type, 0.0)
        assert schedule.lr(total - 1, peak=1.0) == pytest.approx(end, abs=1e-12)
    text = str(choice)
    for part in (choice.reason, choice.instead):
        assert part.endswith(".") and part in text
    assert f"warmup_steps: {choice.warmup_steps}\n" in text
    assert f"Evidence: {choice.evidence} (arXiv " in text
    assert choice.sources
    for source in choice.sources:
        assert re.fullmatch(r"\d{4}\.\d{5}", source) and source in text and source in DOCS


def test_the_warmup_is_rounded_up_like_the_trainers() -> None:
    steps = {("sft", 5000): 150, ("sft", 5001): 151, ("classification", 50): 3, ("rl", 1): 0}
    assert {key: recommend(task=key[0], num_training_steps=key[1]).warmup_steps for key in steps} == steps
    for alias, task in (("grpo", "rl"), ("dpo", "sft")):
        other, same = recommend(task=alias, num_training_steps="50"), recommend(task=task, num_training_steps=50)  # type: ignore[arg-type]
        assert other.training_arguments() == same.training_arguments()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        *(({"task": task}, "task") for task in ("clasification", "", None, ["sft"])),
        *(({"num_training_steps": n}, "num_training_steps") for n in (0, 1.5, "many")),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        recommend(**{"task": "sft", **arguments})  # type: ignore[arg-type]
    assert caught.value.name == name
    assert (caught.value.hint == "did you mean 'classification'?") == (arguments.get("task") == "clasification")


def test_the_table_in_the_docs_agrees() -> None:
    (rows,) = re.findall(r"^\| task \| steps.*?\n\n", DOCS, flags=re.MULTILINE | re.DOTALL)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows.splitlines() if line]
    assert table[0] == ["task", "steps", "take", "instead", "evidence"]
    lengths = {
        "1,000 or more": [n for n in LENGTHS if n and n >= SHORT],
        "fewer than 1,000": [n for n in LENGTHS if n and n < SHORT],
        "any": LENGTHS,
        "unknown": [None],
    }
    seen = []
    for tasks, steps, take, instead, evidence in table[2:]:
        named = re.findall(r"`(\w+)`", tasks)
        for task in [task for task in TASKS if task != "rl"] if tasks == "all but `rl`" else named:
            for length in lengths[steps]:
                choice = recommend(task=task, num_training_steps=length)
                assert (take, instead) == (f"`{choice.lr_scheduler_type}`", f"`{re.split('[, ]', choice.instead)[0]}`")
                assert evidence == choice.evidence
                seen.append((task, length))
    assert sorted(seen, key=repr) == sorted(((task, length) for task in TASKS for length in LENGTHS), key=repr)


def test_the_docs_have_a_section_and_the_warmup_of_every_task() -> None:
    assert re.findall(r"^## `(\w+)`: ", DOCS, flags=re.MULTILINE) == list(TASKS)
    (sentences,) = re.findall(r"The recommended warmup is (.*?), rounded up", DOCS, flags=re.DOTALL)
    percents = {
        task: int(percent)
        for percent, tasks in re.findall(r"(\d)% for\s+([^,]+)", sentences)
        for task in re.findall(r"`(\w+)`", tasks)
    }
    assert percents == {task: recommend(task=task, num_training_steps=100_000).warmup_steps // 1000 for task in TASKS}
    assert "it is 300 steps for `pretraining` and 100 for the rest" in " ".join(DOCS.split())
    assert {recommend(task=task).warmup_steps for task in TASKS if task != "pretraining"} == {100}


def test_the_commands_of_the_docs_print_the_recommendation() -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", DOCS, flags=re.DOTALL)
    text, plain = [
        CliRunner().invoke(app, shlex.split(line, comments=True)[1:], catch_exceptions=False).stdout
        for line in block.splitlines()
    ]
    assert text == f"{recommend(task='sft', num_training_steps=2000)}\n"
    advice = recommend(task="grpo", width=896, lora_r=16, batch_size=64)
    found = json.loads(plain)
    assert (found["lr_scheduler_type"], found["warmup_steps"]) == (advice.lr_scheduler_type, advice.warmup_steps)
    assert advice.peak and found["peak"]["start"] == advice.peak.start > recommend(task="grpo", width=896).peak.start  # type: ignore[union-attr]
    result = CliRunner().invoke(app, ["recommend", "sft", "--model", "no/such"])
    assert isinstance(result.exception, ArgumentError) and result.exception.name == "--model"


def test_the_python_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('TrainingArguments("out"', 'TrainingArguments("out", use_cpu=True'), names)  # tests have no GPU
    assert names["args"].get_warmup_steps(names["args"].max_steps) == 60
    assert capsys.readouterr().out.startswith("lr_scheduler_type: linear_with_warmup\n")
