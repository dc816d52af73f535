"""The record of a run contains no secrets, whatever form they were given in."""

from __future__ import annotations

import pytest

from hf_sched.finetune.config import given_arguments
from hf_sched.finetune.provenance import hide, hide_in_command

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
def test_secret_in_a_command_is_hidden(words):
    hidden = hide_in_command(["python", "sft.py", *words, "--max_steps", "3"])
    assert TOKEN not in hidden and "short" not in hidden
    assert hidden.endswith("--max_steps 3")
    given = hide(given_arguments([*words, "--max_steps", "3"]))
    assert TOKEN not in str(given) and "short" not in str(given)
    assert given["max_steps"] == 3


def test_token_of_the_environment_is_hidden_anywhere(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of-any-form")
    assert hide({"a": ["x of-any-form y"], "b": {"token": "z"}}) == {"a": ["x (hidden) y"], "b": {"token": "(hidden)"}}


def test_arguments_with_token_in_their_name_are_kept():
    kept = {"eos_token": "<|im_end|>", "max_new_tokens": 10, "num_tokens": 5, "pad_token": None, "hub_token": None}
    assert hide(kept) == kept
    assert hide("sk-learn and hf_transfer, hf_sched") == "sk-learn and hf_transfer, hf_sched"
