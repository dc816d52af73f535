"""The record of a run contains no secrets, whatever form they were given in, and no name is taken for one."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from hf_sched.finetune.config import given_arguments
from hf_sched.finetune.provenance import hide, hide_in_command, read_provenance
from tests.helpers.tiny_trainer import ModelTrainer

HEX, BASE32 = "0123456789abcdef", string.ascii_uppercase + "234567"
ALNUM = string.ascii_letters + string.digits
URL = ALNUM + "_-"


def drawn(length: int, alphabet: str = ALNUM) -> str:
    return "".join(random.Random(length).choices(alphabet, k=length))


TOKEN, COMMIT = "hf_" + drawn(34), drawn(40, HEX)
TOKENS = [
    TOKEN,
    "hf_" + "AbCd" * 8,
    f"hf_oauth_eyJ{drawn(30)}.eyJ{drawn(40)}.{drawn(43, URL)}",
    f"api_org_{drawn(34)}",
    *(f"gh{kind}_{drawn(36)}" for kind in "pousr"),
    f"github_pat_{drawn(22)}_{drawn(59)}",
    f"glpat-{drawn(20)}",
    f"sk-{drawn(48)}",
    f"sk-{drawn(32, HEX)}",
    f"sk-proj-{drawn(156, URL)}",
    f"sk-ant-api03-{drawn(93, URL)}AA",
    f"sk-or-v1-{drawn(64, HEX)}",
    f"wandb_v1_{drawn(77, ALNUM + '_')}",
    drawn(40, HEX),
    f"AKIA{drawn(16, BASE32)}",
    f"ASIA{drawn(16, BASE32)}",
]
NAMES = [
    "hf-internal-testing/tiny-random-LlamaForCausalLM",
    "runs/hf_sched_grpo_lr_sweep_1",
    "hf_sched_cosine_floor_with_warmup_and_restarts_experiment_number_12",
    "sk-learn and hf_transfer, hf_sched",
    "runs/sk-2026-11-28-sweep-learning-rate-warmup-cosine",
    "sk-proj-learning-rate-sweep-with-long-names-for-everything",
    "gho_experiment_one_with_a_long_name_for_the_sweep",
    "ask-me-anything-about-learning-rates",
    f"models--org--name/snapshots/{COMMIT}",
    f"git+https://github.com/org/name@{COMMIT}",
    drawn(64, HEX),
    drawn(32, HEX),
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("text", ["{}", "key={}", "'{}'", "before {} after"])
def test_real_token_is_hidden_in_any_text(token, text):
    assert hide(text.format(token)) == text.format("(hidden)")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_begin_like_tokens_are_kept(name):
    assert hide(name) == name
    assert hide_in_command(["x", "--output_dir", name]).replace("'", "").endswith(name)


def test_commit_given_as_revision_is_kept():
    assert hide({"model_revision": COMMIT, "seed": COMMIT}) == {"model_revision": COMMIT, "seed": "(hidden)"}
    words = [f"--dataset_revision={COMMIT}", "--model_init_kwargs", f'{{"code_revision": "{COMMIT}"}}', f"--x={COMMIT}"]
    assert hide_in_command(words).count(COMMIT) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--hub_token", TOKEN],
        [f"--hub-token={TOKEN}"],
        ["--push_to_hub_token", "short"],
        ["--wandb_api_key=short"],
        ["--aws_secret_access_key", "short"],
        ["--model", f"https://user:{TOKEN}@huggingface.co/x"],
        ["--lr_scheduler_kwargs", f'{{"a": "{TOKEN}"}}'],
        ["--model_init_kwargs", '{"token": "short"}'],
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


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "HUGGING_FACE_HUB_TOKEN"])
def test_token_of_the_environment_is_hidden_anywhere(monkeypatch, name):
    monkeypatch.setenv(name, "of-any-form")
    monkeypatch.setenv("COMET_API_KEY", "1")
    assert hide({"a": ["1 of-any-form y"], "b": {"token": "z"}}) == {"a": ["1 (hidden) y"], "b": {"token": "(hidden)"}}


def test_arguments_with_token_in_their_name_are_kept():
    kept = {"eos_token": "<|im_end|>", "max_new_tokens": 10, "num_tokens": 5, "pad_token": None, "hub_token": None}
    assert hide(kept) == kept


def test_record_of_a_run_names_its_arguments_without_tokens(model_path, tmp_path):
    trainer = ModelTrainer(model_path, tmp_path, max_steps=1, save_strategy="no")
    given = {"output_dir": "runs/hf_sched_grpo_lr_sweep_1", "model_revision": COMMIT}
    trainer.run(given={**given, "run_name": TOKEN})
    (session,) = read_provenance(Path(tmp_path, "run.json"))
    assert session["arguments"] == {**given, "run_name": "(hidden)"}
