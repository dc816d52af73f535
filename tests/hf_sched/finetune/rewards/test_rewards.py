"""Rewards tell right answers from wrong ones for any completion, and a failing reward never stops a run."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sched.finetune.rewards import REWARDS, check_reward_columns, load_rewards
from hf_sched.finetune.rewards.formats import answer_format, tag_count
from hf_sched.finetune.rewards.safe_reward import SafeReward
from hf_sched.schedules.validation import ArgumentError
from tests.helpers.recipes import COMMON, GRPO, ROOT, Finished


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def load(*named: Any) -> list[Any]:
    return list(load_rewards(list(named))[0])


def test_format_rewards_match_named_formats_regular_expressions_and_tags():
    for name, completion, wrong in (
        ("boxed", r"so \boxed{3}", "so 3"),
        ("hashes", "so\n#### 3", "so 3"),
        ("answer_tag", "so <answer>3</answer>", "<answer>3"),
        ("think_answer", "<think>hm</think>\n<answer>3</answer>", "hm <answer>3</answer>"),
        (r"\d+", "33", "33!"),
    ):
        assert (answer_format(completion, format=name), answer_format(wrong, format=name)) == (1.0, 0.0)
    assert tag_count("<think>a</think><answer>b</answer>") == tag_count("[a]", tags=["[", "]"]) == 1
    assert tag_count("<think>a<think></think>") == 0.25


@given(st.text(), st.text(alphabet=r"0123456789\{}$^_()frac+-*/=,.# sqrtboxedxy", max_size=60), st.text())
@settings(deadline=None, max_examples=200)
def test_no_completion_breaks_a_reward(text: str, formula: str, answer: str):
    for reward in load(*(name for name in REWARDS if name != "accuracy")):
        for form in (text, formula, chat(text)):
            assert reward(completions=[form], answer=[answer])[0] in (None, 0, 0.25, 0.5, 0.75, 1)
    (reward,) = load("accuracy")
    scores = reward(completions=[formula, rf"\boxed{{{formula}}}"], answer=["72", "72"])
    assert set(scores) <= {0.0, 1.0, None}


def test_rewards_load_from_trl_and_from_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text(
        "def mine(completions, scale=1.0, **kwargs):\n    return [scale for _ in completions]\n"
        "class Made:\n    def __init__(self, value):\n        self.value = value\n"
        "    def __call__(self, completions, **kwargs):\n        return [self.value for _ in completions]\n"
        "async def later(completions, **kwargs):\n    return [0.0 for _ in completions]\n"
    )
    rewards, weights = load_rewards(
        [
            "think_format",
            {"name": "my_rewards.mine", "scale": 0.5, "weight": 2},
            '{"name": "my_rewards.Made", "value": 0.25, "as": "made"}',
            {"name": "repetition_penalty", "ngram_size": 2, "max_penalty": -1.0},
            "my_rewards.later",
            "org/reward-model",
        ]
    )
    names = [getattr(reward, "__name__", reward) for reward in rewards]
    assert names == ["think_format", "mine", "made", "repetition_penalty", "later", "org/reward-model"]
    assert weights == [1, 2, 1, 1, 1, 1]
    thought, scaled, made, repeated, *_ = rewards
    assert thought(completions=[chat("<think>a</think>b"), chat("b")]) == [1.0, 0.0]
    assert scaled(completions=["a", "b"]) == [0.5, 0.5] and made(completions=["a"]) == [0.25]
    assert repeated(completions=["a", "b"], completion_ids=[[1, 2, 3], [5, 5, 5, 5]]) == [0.0, pytest.approx(-2 / 3)]


def test_weights_are_given_in_one_place_only():
    assert [load_rewards(["final_number"], weights)[1] for weights in (None, [0.5])] == [None, [0.5]]
    with pytest.raises(ValueError, match="`reward_weights` must be omitted"):
        load_rewards([{"name": "final_number", "weight": 1}], [0.5])


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (None, "`reward_funcs` must be at least one reward"),
        (["exact_anser"], r"received 'exact_anser'; did you mean 'exact_answer'\?"),
        (["no_module.here"], "received 'no_module.here'"),
        ([3], "must be names of rewards or mappings with a `name`, received 3"),
        ([{"name": "repetition_penalty", "max_penalty": 1}], "'repetition_penalty' parameters that it rejects.* not b"),
        ([{"name": "repetition_penalty", "ngram": 1}], "unknown parameter `ngram`; it takes ngram_size, max_penalty"),
        ([{"name": "final_number", "weight": "high"}], "'final_number' a number as `weight`, received 'high'"),
        ([{"name": "org/model", "x": 1}], "gives 'org/model' the unknown parameter `x`; it takes none"),
    ],
)
def test_wrong_rewards_are_rejected(named: Any, words: str):
    with pytest.raises(ArgumentError, match=words):
        load_rewards(named)
    with pytest.raises(ArgumentError, match=r"^`metric`"):
        load_rewards(named, argument="metric")


@pytest.mark.parametrize(
    "signature",
    ["completion, **kwargs", "completions, answer", "text", "*completions", "prompt, completions, **kwargs"],
)
def test_wrong_signature_is_rejected_with_the_expected_one(tmp_path: Path, monkeypatch, signature: str):
    monkeypatch.chdir(tmp_path)
    module = f"signature_{abs(hash(signature))}"
    (tmp_path / f"{module}.py").write_text(f"def mine({signature}):\n    return [1.0]\n")
    with pytest.raises(ArgumentError) as error:
        load(f"{module}.mine")
    assert "must be functions `(completions, **kwargs)` that return a list with a number or None" in str(error.value)
    assert error.value.received == f"{module}.mine({signature})"


def test_two_rewards_of_one_name_are_rejected_unless_one_is_renamed():
    boxed, hashes = ({"name": "answer_format", "format": form} for form in ("boxed", "hashes"))
    with pytest.raises(ArgumentError, match=r"several rewards the name 'answer_format'.*set another name .* with `as`"):
        load(boxed, hashes)
    assert [one.__name__ for one in load(boxed, {**hashes, "as": "hashes"})] == ["answer_format", "hashes"]


def test_broken_file_of_the_user_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_rewards.py").write_text("def mine(completions, **kwargs)\n")
    with pytest.raises(ArgumentError, match=r"SyntaxError: .*broken_rewards.py, line 1"):
        load("broken_rewards.mine")


def test_column_that_a_custom_reward_requires_is_checked(strange: str):
    rewards = load(f"{strange}.leveled", "final_number")
    check_reward_columns(rewards, ["prompt", "answer", "level"])
    with pytest.raises(ArgumentError, match="reward 'leveled', which needs a column `level`; the data have prompt, an"):
        check_reward_columns(rewards, ["prompt", "answer"])


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of rewards that fail on some completions, and return its name."""
    monkeypatch.chdir(tmp_path)
    name = f"strange_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "import asyncio, re, time\n"
        "def slow(completions, **kwargs):\n    return [float(bool(re.match(r'(a+)+$', c))) for c in completions]\n"
        "def stubborn(completions, **kwargs):\n"
        "    try:\n        return [time.sleep(float(c)) for c in completions]\n"
        "    except Exception:\n        return [1.0 for _ in completions]\n"
        "def short(completions, **kwargs):\n    return [1.0]\n"
        "def single(completions, **kwargs):\n    return 1.0\n"
        "def leveled(completions, level, scale=1, **kwargs):\n    return [scale * one for one in level]\n"
        "async def later(completions, unit=1.0, **kwargs):\n"
        "    await asyncio.sleep(max(map(float, completions)))\n    return [unit * float(c) for c in completions]\n"
    )
    return name


def test_failing_batch_after_a_success_has_no_rewards(caplog: pytest.LogCaptureFixture):
    sizes: list[int] = []

    def relative(completions: list[str], **_: Any) -> list[float]:
        sizes.append(len(completions))
        return [len(completion) / max(map(len, completions)) for completion in completions]

    reward = SafeReward("relative", relative, time_limit=5)
    assert reward(completions=["ab", "abcd"]) == [0.5, 1.0]
    for _ in range(2):
        assert reward(completions=["", ""]) == [None, None]
    assert reward(completions=["abc", "", "a"]) == [1.0, 0.0, pytest.approx(1 / 3)]
    assert sizes == [2, 2, 2, 3], "it compares completions, so it never gets one alone"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    expected = "the reward 'relative' failed (ZeroDivisionError: division by zero) on a batch of 2 completions"
    assert record.getMessage().startswith(expected)


def test_failing_completion_leaves_the_others_their_reward_if_each_is_scored_alone():
    reward = SafeReward("share", lambda text, answer: len(answer) / len(text), 5, {}, ["answer"], is_single=True)
    assert reward(completions=["", "abcd", ""], answer=["a", "b", "c"]) == [None, 0.25, None]
    assert reward(completions=["", ""], answer=["a", "b"]) == [None, None], "it has worked before"
    assert reward(completions=["abcd", "ab"], answer=[None, 7]) == [None, 0.5]


@pytest.mark.parametrize("completions", [["a"], ["a", "b"]])
@pytest.mark.parametrize("is_single", [False, True])
def test_reward_that_always_fails_stops_the_run_at_the_first_batch(completions: list[str], is_single: bool):
    def broken(*args: Any, **kwargs: Any) -> list[float]:
        raise AttributeError("no such thing")

    reward = SafeReward("broken", broken, time_limit=5, is_single=is_single)
    with pytest.raises(ValueError, match=r"'broken' failed \(AttributeError: no such thing\) on its first batch"):
        reward(completions=completions)


def test_wrong_number_of_rewards_is_an_error_of_the_function(strange: str):
    short, single = load(f"{strange}.short", f"{strange}.single")
    assert short(completions=["a"]) == [1.0]
    with pytest.raises(ValueError, match=r"'short' returned 1 rewards for 3 completions; .* return a list"):
        short(completions=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"'single' failed \(TypeError: .* not iterable\) .* return a list"):
        single(completions=["a"])


def test_time_limit_covers_a_whole_batch(strange: str, caplog: pytest.LogCaptureFixture):
    slow, stubborn = load(*({"name": f"{strange}.{name}", "time_limit": 0.3} for name in ("slow", "stubborn")))
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"'slow' took longer than its time limit \(0.3 s per call\) on its first"):
        slow(completions=["a" * 60 + "b"])
    assert slow(completions=["aaa", "b"]) == [1.0, 0.0]
    assert slow(completions=["aaa", *["a" * 60 + "b"] * 20]) == [None] * 21  # without a limit, it takes years
    with pytest.raises(ValueError, match="took longer"):
        stubborn(completions=["5"] * 20)
    assert time.monotonic() - start < 5
    assert "the reward 'slow' took longer than its time limit" in caplog.text


def test_slow_completions_share_the_time_limit_and_leave_time_for_the_others():
    def wait(text: str) -> float:
        time.sleep(float(text))
        return 1.0

    reward, start = SafeReward("wait", wait, time_limit=1, is_single=True), time.monotonic()
    assert reward(completions=["0", *["5"] * 4, "0"]) == [1, None, None, None, None, 1]
    assert reward(completions=["5"] * 100 + ["0"]).count(None) >= 100
    assert time.monotonic() - start < 4


def test_async_reward_keeps_parameters_name_and_time_limit(strange: str):
    given = {"name": f"{strange}.later", "unit": 2.0, "as": "judge", "time_limit": 0.3}
    (later,) = load(given)
    assert later.__name__ == "judge" and inspect.iscoroutinefunction(later)
    assert asyncio.run(later(completions=["0", "0.1"])) == [0, 0.2]
    assert asyncio.run(later(completions=["0", "5"])) == [None, None]
    with pytest.raises(ValueError, match=r"'judge' failed \(ValueError"):
        asyncio.run(load(given)[0](completions=["x"]))


def test_only_named_rewards_are_imported():
    code = """
import sys
from hf_sched.finetune.rewards import load_rewards
load_rewards(['final_number'])
print({'math_verify', 'sympy', 'trl', 'torch'} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_grpo_logs_each_reward_and_weighs_them(run_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "house_rewards.py").write_text(
        "def digits(completions, scale=1.0, **kwargs):\n"
        "    return [scale * sum(c.isdigit() for c in chat[-1]['content']) for chat in completions]\n"
        "def moody(completions, trainer_state, **kwargs):\n"
        "    return [1 / (1 - trainer_state.global_step) for _ in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    digits = {"name": "house_rewards.digits", "scale": 0.1, "weight": 0.5}
    rewards = [{"name": "final_number", "weight": 2.0}, digits, {"name": "house_rewards.moody", "weight": 0.0}]
    given = {"max_steps": 3, "reward_funcs": rewards, "save_strategy": "steps", "save_steps": 1}
    run = run_recipe("grpo", **given)
    digits = np.array(run.logged("rewards/digits/mean"))
    right = np.array(run.logged("rewards/final_number/mean"))
    assert len(digits) == 3 and digits.min() > 0
    np.testing.assert_allclose(run.logged("reward"), 2.0 * right + 0.5 * digits, rtol=1e-5, atol=1e-7)
    assert run.args.reward_weights == [2.0, 0.5, 0.0]
    assert "the reward 'moody' failed (ZeroDivisionError" in run.output
    # It fails on the first batch of the resumed run, and has worked before.
    checkpoint = str(run.folder / "checkpoint-1")
    resumed = run_recipe("grpo", name="resumed", resume_from_checkpoint=checkpoint, **given)
    assert "the reward 'moody' failed (ZeroDivisionError" in resumed.output
    others = {**given, "reward_funcs": rewards[::-1]}
    rejected = run_recipe("grpo", name="others", ok=False, resume_from_checkpoint=checkpoint, **others)
    assert "the reward 'moody' failed (ZeroDivisionError: division by zero) on its first batch" in rejected.output


def test_custom_reward_gets_the_columns_of_the_data_and_the_users_own_modules(task: Path, tmp_path: Path):
    (tmp_path / "data.py").write_text("VOCAB = '0123456789'\n")
    (tmp_path / "grpo.py").write_text("LARGEST = 3\n")  # also the name of the recipe's script
    (tmp_path / "my_rewards.py").write_text(
        "from data import VOCAB\nfrom grpo import LARGEST\n"
        "def level(completions, difficulty, **kwargs):\n"
        "    return [len(VOCAB) * number / LARGEST for number in difficulty]\n"
    )
    rows = [("1 plus 1", "#### 2", 3), ("2 plus 5", "#### 7", 1)]
    lines = [json.dumps(dict(zip(("question", "answer", "difficulty"), row, strict=True))) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    places = {"model_name_or_path": str(task / "model"), "dataset_name": "rows.jsonl", "output_dir": "run"}
    given = {"max_steps": 1, "reward_funcs": ["my_rewards.level"]}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**COMMON, **GRPO, **places, **given}))
    command = [sys.executable, str(ROOT / "recipes/grpo.py"), "--config", "my.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert Finished(tmp_path / "run", 0, "").logged("rewards/level/mean") == pytest.approx([10 * (3 + 1) / 2 / 3])


def test_recipe_rejects_a_missing_column_before_the_model_is_loaded(run_recipe, tmp_path: Path):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "1 2 3"}\n' * 8)
    run = run_recipe("grpo", ok=False, dataset_name=str(data), model_name_or_path="nobody/no-such-model")
    assert run.returncode == 2
    assert "the reward 'exact_answer', which needs a column `answer`; the data have prompt" in run.output
