"""Rewards tell right answers from wrong ones, whatever a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import exact_answer, final_number, load_rewards


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_exact_answer_wants_the_whole_completion():
    assert exact_answer(["12359", " 12359\n", "12359!", "", "1235"], ["12359"] * 5) == [1, 1, 0, 0, 0]
    assert exact_answer([chat("12359")], ["12359"]) == [1]


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("48 / 2 = 24, 48 + 24 = 72.\n#### 72", True),
        (r"so it is \boxed{72}", True),
        ("The answer is 72.", True),
        ("#### $72.00", True),
        ("#### 72 apples, not 73 #### 72", True),
        ("#### 73, or 72?", True),  # the last number of what is marked
        ("72 or 73", False),
        ("#### 73", False),
        (r"72, so \boxed{73}", False),
        ("", False),
        ("####", False),
        ("no number at all", False),
    ],
)
def test_final_number_reads_the_marked_or_the_last_number(completion, right):
    assert final_number([completion], ["72"]) == [float(right)]


def test_final_number_knows_thousands_and_signs():
    assert final_number(["#### 1,234", "#### -5", "#### 5"], ["1234", "-5", "-5"]) == [1, 1, 0]


@given(st.text(), st.text())
def test_no_completion_breaks_a_reward(completion, answer):
    for reward in (exact_answer, final_number):
        assert reward([completion], [answer])[0] in (0.0, 1.0)
        assert reward([chat(completion)], [answer])[0] in (0.0, 1.0)


def test_rewards_are_found_by_name_in_trl_or_in_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text("def mine(completions, **kwargs):\n    return [0.5 for _ in completions]\n")
    own, trl, mine = load_rewards(["exact_answer", "think_format_reward", "my_rewards.mine"])
    assert own is exact_answer
    assert trl.__module__.startswith("trl.rewards")
    assert mine(completions=["a"]) == [0.5]


@pytest.mark.parametrize("name", ["exact_anser", "no_module.here", None, []])
def test_an_unknown_reward_is_refused_with_the_names_there_are(name):
    with pytest.raises(
        ValueError, match=r"`reward_funcs` must name.*exact_answer|`reward_funcs` must be names.*exact_answer"
    ):
        load_rewards(name)
