"""Rewards tell right answers from wrong ones for any completion, and a failing reward never stops a run."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_sched.finetune.rewards import REWARDS, load_rewards
from hf_sched.finetune.rewards.answers import accuracy, exact_answer, final_number
from hf_sched.finetune.rewards.formats import answer_format, tag_count
from hf_sched.schedules.validation import ArgumentError


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def load(*named: Any) -> list[Any]:
    return list(load_rewards(list(named))[0])


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("48 / 2 = 24, 48 + 24 = 72.\n#### 72", True),
        (r"so it is \boxed{72}", True),
        (r"so it is \boxed{72} of \boxed{", False),
        ("<think>73?</think>\n<answer>72</answer>", True),
        ("The answer is 72.", True),
        ("#### $72.00", True),
        (r"\boxed{72", True),
        (r"#### 73, no, \boxed{72}", True),
        (r"72, so \boxed{73}", False),
        ("", False),
        ("no number at all", False),
    ],
)
def test_last_marked_answer_or_last_number_is_compared(completion: str, right: bool):
    assert final_number(completion, "72") == accuracy(completion, "72") == float(right)


def test_exact_answer_compares_all_and_final_number_thousands_and_signs():
    assert [exact_answer(c, "12359") for c in ["12359", " 12359\n", "12359!", "", "1235"]] == [1, 1, 0, 0, 0]
    assert [final_number(*pair) for pair in [("#### 1,234", "1234"), ("#### -5", "-5"), ("#### 5", "-5")]] == [1, 1, 0]


def test_accuracy_compares_mathematically():
    for completion, answer, score in [
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        (r"\boxed{8\text{ apples}}", "8", 1.0),
        ("I think that x is $1 + x$.", "x+1", 1.0),
        (r"#### \frac{1}{2}", "0.5", 1.0),
        (r"\boxed{x - 1}", "$1 + x$", 0.0),
        ("#### 1,234", "1234", 1.0),
        ("#### 5", "", None),
    ]:
        assert accuracy(completion, answer) == score, completion


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
            assert 0 <= reward(completions=[form], answer=[answer])[0] <= 1
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


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of rewards that fail on some completions, and return its name."""
    monkeypatch.chdir(tmp_path)
    name = f"strange_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "import re\n"
        "def fragile(completions, **kwargs):\n    return [1 / len(c) for c in completions]\n"
        "def slow(completions, **kwargs):\n    return [float(bool(re.match(r'(a+)+$', c))) for c in completions]\n"
        "def broken(completions, **kwargs):\n    return [c.no_such_thing for c in completions]\n"
        "def short(completions, **kwargs):\n    return [1.0]\n"
    )
    return name


def test_failing_completion_leaves_the_others_their_reward(strange: str, caplog: pytest.LogCaptureFixture):
    (fragile,) = load(f"{strange}.fragile")
    assert fragile(completions=["ab", "", "abcd", ""]) == [0.5, None, 0.25, None]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("the reward 'fragile' failed (ZeroDivisionError: division by zero) on")


def test_slow_completion_gets_no_reward(strange: str, caplog: pytest.LogCaptureFixture):
    (slow,) = load({"name": f"{strange}.slow", "time_limit": 0.3})
    assert slow(completions=["aaa", "a" * 60 + "b"]) == [1.0, None]  # without a limit, it takes years
    assert "the reward 'slow' took longer than 0.3 s on the completion 'aaaa" in caplog.text


def test_reward_that_always_fails_stops_the_run(strange: str):
    broken, short = load(f"{strange}.broken", f"{strange}.short")
    with pytest.raises(ValueError, match="'broken' failed on each of 2 completions: AttributeError"):
        broken(completions=["a", "b"])
    assert short(completions=["a", "b"]) == [1.0, 1.0]  # it works on one completion at a time


def test_only_named_rewards_are_imported():
    code = (
        "import sys\n"
        "from hf_sched.finetune.rewards import load_rewards\n"
        "load_rewards(['final_number'])\n"
        "heavy = {'math_verify', 'sympy', 'trl', 'torch'}\n"
        "print(heavy & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_grpo_logs_each_reward_and_weighs_them(run_recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "house_rewards.py").write_text(
        "def digits(completions, scale=1.0, **kwargs):\n"
        "    return [scale * sum(c.isdigit() for c in chat[-1]['content']) for chat in completions]\n"
        "def moody(completions, **kwargs):\n"
        "    return [1 / (len(chat[-1]['content']) % 3) for chat in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    digits = {"name": "house_rewards.digits", "scale": 0.1, "weight": 0.5}
    rewards = [{"name": "final_number", "weight": 2.0}, digits, {"name": "house_rewards.moody", "weight": 0.0}]
    run = run_recipe("grpo", max_steps=3, reward_funcs=rewards)
    digits = np.array(run.logged("rewards/digits/mean"))
    right = np.array(run.logged("rewards/final_number/mean"))
    assert len(digits) == 3 and digits.min() > 0
    np.testing.assert_allclose(run.logged("reward"), 2.0 * right + 0.5 * digits, rtol=1e-5, atol=1e-7)
    assert run.args.reward_weights == [2.0, 0.5, 0.0]
    assert "the reward 'moody' failed (ZeroDivisionError" in run.output


def test_recipe_rejects_a_missing_column_before_the_model_is_loaded(run_recipe, tmp_path: Path):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "1 2 3"}\n' * 8)
    run = run_recipe("grpo", ok=False, dataset_name=str(data), model_name_or_path="nobody/no-such-model")
    assert run.returncode == 2
    assert "the reward 'exact_answer', which needs a column `answer`; the data have prompt" in run.output
