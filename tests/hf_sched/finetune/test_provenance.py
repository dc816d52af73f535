"""What is written down of a run holds no secret, whatever form it was given in."""

from __future__ import annotations

import pytest

from hf_sched.finetune.provenance import git_commit, given_arguments, hide, hide_in_words

TOKEN = "hf_" + "AbCd" * 8


@pytest.mark.parametrize(
    "words",
    [
        ["--hub_token", TOKEN],
        [f"--hub-token={TOKEN}"],
        ["--push_to_hub_token", "short"],
        ["--wandb_api_key=short"],
        ["--model", f"https://user:{TOKEN}@huggingface.co/x"],
        ["--lr_scheduler_kwargs", f'{{"a": "{TOKEN}"}}'],
        ["--model", "https://user:short@example.org/x"],
    ],
)
def test_a_secret_in_a_command_is_hidden(words):
    hidden = " ".join(hide_in_words(["python", "sft.py", *words, "--max_steps", "3"]))
    assert TOKEN not in hidden and "short" not in hidden
    assert hidden.endswith("--max_steps 3")
    given = hide(given_arguments([*words, "--max_steps", "3"]))
    assert TOKEN not in str(given) and "short" not in str(given)
    assert given["max_steps"] == 3


def test_a_token_of_the_environment_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of-any-form")
    assert hide({"a": ["x of-any-form y"], "b": {"token": "z"}}) == {"a": ["x (hidden) y"], "b": {"token": "(hidden)"}}


def test_what_only_has_token_in_its_name_is_kept():
    kept = {"eos_token": "<|im_end|>", "max_new_tokens": 10, "num_tokens": 5, "pad_token": None, "hub_token": None}
    assert hide(kept) == kept
    assert hide("sk-learn and hf_transfer, hf_sched") == "sk-learn and hf_transfer, hf_sched"


def test_flags_win_over_the_file_and_are_read_as_yaml_would(tmp_path):
    (tmp_path / "c.yaml").write_text("max_steps: 5\nseed: 1\n")
    words = ["--config", str(tmp_path / "c.yaml"), "--max-steps=7", "--reward_funcs", "a", '{"name": "b"}', "--bf16"]
    given = given_arguments(words)
    assert (given["max_steps"], given["seed"], given["bf16"]) == (7, 1, True)
    assert given["reward_funcs"] == ["a", {"name": "b"}]


def test_outside_a_checkout_or_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
