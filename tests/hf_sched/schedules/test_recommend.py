"""The advice: it can be built as it stands, keeps to its rules, and is what `docs/choosing.md` says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import yaml

import hf_sched
from hf_sched.schedules.recommend import ALIASES, SHORT, TASKS, recommend

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")

LENGTHS = (None, 1, 2, 50, 500, SHORT - 1, SHORT, 5000, 1_000_000)
GENEROUS = 10_000
"""What stands in for an unknown length."""

every_case = pytest.mark.parametrize(("task", "length"), [(task, length) for task in TASKS for length in LENGTHS])


@every_case
def test_it_can_be_built_as_it_stands(task: str, length: int | None) -> None:
    advice = recommend(task=task, num_training_steps=length)
    total = length or GENEROUS
    assert type(advice.warmup_steps) is int and 0 <= advice.warmup_steps < total
    schedule = hf_sched.build(
        advice.lr_scheduler_type,
        num_training_steps=total,
        num_warmup_steps=advice.warmup_steps,
        **advice.lr_scheduler_kwargs,
    )
    assert schedule.lr(max(advice.warmup_steps - 1, 0), peak=1.0) == 1.0
    if total > 2:  # in two steps, the warmup and the end of a decay are all there is
        ends_on = {"phases": 1.0, "exponential": 0.01}.get(advice.lr_scheduler_type, 0.0)
        assert schedule.lr(total - 1, peak=1.0) == pytest.approx(ends_on, abs=1e-12)


@every_case
def test_the_runner_up_can_be_built_too(task: str, length: int | None) -> None:
    advice = recommend(task=task, num_training_steps=length)
    assert advice.instead != advice.lr_scheduler_type
    hf_sched.build(
        advice.instead,
        num_training_steps=length or GENEROUS,
        num_warmup_steps=advice.warmup_steps,
        **advice.instead_kwargs,
    )


@every_case
def test_it_keeps_to_the_rules(task: str, length: int | None) -> None:
    advice = recommend(task=task, num_training_steps=length)
    if length is None:
        assert advice.lr_scheduler_type == "wsd"
    elif task == "rl":
        assert (advice.lr_scheduler_type, advice.lr_scheduler_kwargs) == ("phases", {"phases": "hold"})
    elif length < SHORT:
        assert advice.lr_scheduler_type == "linear_with_warmup"
        assert advice.instead == ("wsd" if task == "pretraining" else "cosine_floor")
    else:
        assert advice.lr_scheduler_type == {"cnn": "exponential", "long": "cosine_restarts"}.get(
            task, "linear_with_warmup"
        )


@every_case
def test_it_says_why_and_where_from(task: str, length: int | None) -> None:
    advice = recommend(task=task, num_training_steps=length)
    text = str(advice)
    for part in (advice.lr_scheduler_type, advice.reason, advice.evidence_reason, advice.instead_when):
        assert part and part in text
    assert f"warmup_steps: {advice.warmup_steps}\n" in text
    assert f"Evidence: {advice.evidence}. " in text
    assert len(text.splitlines()) == 7
    for sentences in (advice.reason, advice.evidence_reason, advice.instead_when):
        assert sentences.endswith(".")
    assert advice.sources
    for source in advice.sources:
        assert source in text
        (number,) = re.findall(r"arXiv (\d{4}\.\d{5})$", source)
        assert number in DOCS, source


def test_the_arguments_are_plain_and_survive_json_and_yaml() -> None:
    for task in TASKS:
        for length in LENGTHS:
            arguments = recommend(task=task, num_training_steps=length).training_arguments()
            assert list(arguments) == ["lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"]
            assert json.loads(json.dumps(arguments)) == arguments
            assert yaml.safe_load(yaml.safe_dump(arguments)) == arguments


def test_the_warmup_is_a_share_rounded_up_as_the_trainer_rounds_it() -> None:
    assert recommend(task="sft", num_training_steps=5000).warmup_steps == 150
    assert recommend(task="sft", num_training_steps=5001).warmup_steps == 151
    assert recommend(task="classification", num_training_steps=50).warmup_steps == 3
    assert recommend(task="rl", num_training_steps=1).warmup_steps == 0


def test_grpo_is_rl() -> None:
    assert ALIASES == {"grpo": "rl"}
    for length in LENGTHS:
        assert recommend(task="grpo", num_training_steps=length) == recommend(task="rl", num_training_steps=length)


def test_a_recommendation_cannot_be_changed_and_what_it_hands_out_is_ones_own() -> None:
    advice = recommend(task="cnn", num_training_steps=5000)
    with pytest.raises(FrozenInstanceError):
        advice.warmup_steps = 3  # type: ignore[misc]
    assert len({advice, recommend(task="cnn", num_training_steps=5000)}) == 1
    advice.training_arguments()["lr_scheduler_kwargs"].clear()
    assert advice.lr_scheduler_kwargs
    advice.lr_scheduler_kwargs.clear()
    advice.instead_kwargs["floor_ratio"] = 1
    assert recommend(task="cnn", num_training_steps=5000).lr_scheduler_kwargs == {"floor_ratio": 0.01}
    assert recommend(task="cnn", num_training_steps=5000).instead_kwargs == {}


@pytest.mark.parametrize("task", ["clasification", "SFT", "", None, 3, ["sft"]])
def test_a_wrong_task_is_refused_by_name(task: object) -> None:
    with pytest.raises(ValueError, match="`task` must be one of pretraining, sft, classification, cnn, long, rl, grpo"):
        recommend(task=task)  # type: ignore[arg-type]


def test_a_near_miss_is_answered() -> None:
    with pytest.raises(ValueError, match=r"received 'clasification'; did you mean 'classification'\?"):
        recommend(task="clasification")


@pytest.mark.parametrize("length", [0, -1, 1.5, "many", True, float("nan")])
def test_a_wrong_length_is_refused_by_name(length: object) -> None:
    with pytest.raises(ValueError, match="`num_training_steps` must be a whole number, 1 or more, received"):
        recommend(task="sft", num_training_steps=length)  # type: ignore[arg-type]


def test_a_length_may_be_text() -> None:
    as_text = recommend(task="sft", num_training_steps="5000")  # type: ignore[arg-type]
    assert as_text == recommend(task="sft", num_training_steps=5000)


def test_it_needs_neither_torch_nor_transformers() -> None:
    code = """
import sys
from hf_sched.schedules.recommend import recommend
print(recommend(task="grpo", num_training_steps=500))
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)


def rows() -> list[list[str]]:
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in DOCS.splitlines() if line[:1] == "|"]
    assert table[0] == ["task", "steps", "take", "instead", "evidence"]
    return table[2:]


def test_the_table_in_the_docs_is_what_recommend_says() -> None:
    steps = {
        "1,000 or more": [SHORT, 5000, 1_000_000],
        "fewer than 1,000": [1, 2, 50, 500, SHORT - 1],
        "1 or more": [1, 2, 50, 500, SHORT - 1, SHORT, 5000, 1_000_000],
        "unknown": [None],
    }
    seen = []
    for tasks, lengths, take, instead, evidence in rows():
        for task in re.findall(r"`(\w+)`", tasks):
            for length in steps[lengths]:
                advice = recommend(task=task, num_training_steps=length)
                said = (f"`{advice.lr_scheduler_type}`", f"`{advice.instead}`", advice.evidence)
                assert said == (take, instead, evidence), (task, length)
                seen.append((task, length))
    assert sorted(seen, key=repr) == sorted(((task, length) for task in TASKS for length in LENGTHS), key=repr)


def test_the_docs_state_the_warmups() -> None:
    (sentences,) = re.findall(r"The recommended warmup is (.*?)\. These", DOCS, flags=re.DOTALL)
    for percent, tasks in re.findall(r"(\d)% for ([^,]+)", sentences):
        for task in re.findall(r"`(\w+)`", tasks):
            assert recommend(task=task, num_training_steps=100_000).warmup_steps == int(percent) * 1000, task
    assert len(re.findall(r"`(\w+)`", sentences.split(", rounded up")[0])) == len(TASKS)
    assert "it is 300 steps for `pretraining` and 100 for the rest" in " ".join(sentences.split())
    assert {task: recommend(task=task).warmup_steps for task in TASKS} == {
        task: 300 if task == "pretraining" else 100 for task in TASKS
    }


def test_the_docs_have_a_section_for_every_task_with_its_schedule() -> None:
    for task in TASKS:
        assert re.search(rf"^## `{task}`: ", DOCS, flags=re.MULTILINE), task


def test_the_python_of_the_docs_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    code = code.replace('TrainingArguments("out"', 'TrainingArguments("out", use_cpu=True')  # a test has no GPU to find
    code += "\nassert args.get_warmup_steps(args.max_steps) == 60"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lr_scheduler_type: linear_with_warmup\n")
