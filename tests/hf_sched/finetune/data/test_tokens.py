"""The tokenizer is compared with the data before the model is loaded, and the trained text is shown."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import trl
from packaging.version import Version

from tests.helpers.rows import write

CHAT = [{"role": "user", "content": "sort 21"}, {"role": "assistant", "content": "12"}]
drops_rows = pytest.mark.skipif(
    Version(trl.__version__) < Version("1.16"), reason="older TRL keeps rows without trained text"
)
LONG = [*CHAT, {"role": "user", "content": "sort 7531"}, {"role": "assistant", "content": "1357"}]


@pytest.fixture
def no_weights(task, tmp_path):
    """The model's folder without weights: loading the model would fail."""
    folder = tmp_path / "model"
    shutil.copytree(task / "model", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def rejected(run) -> str:
    assert run.returncode == 2 and "Traceback" not in run.output
    return next(line for line in run.output.splitlines() if "error:" in line)


@pytest.mark.parametrize("recipe", ["sft", "grpo", "dpo"])
def test_model_without_chat_template_is_rejected_before_loading(run_recipe, no_weights, recipe):
    (no_weights / "chat_template.jinja").unlink()
    error = rejected(run_recipe(recipe, ok=False, model_name_or_path=str(no_weights), max_steps=1))
    assert "`model_name_or_path` has no chat template, and the data are chats; use the instruction-tuned" in error
    assert ("or set `chat_template_path`" in error) == (recipe == "sft")


def test_chat_that_the_template_rejects_or_shortens_is_named(run_recipe, task, no_weights, tmp_path):
    template, model = no_weights / "chat_template.jinja", str(no_weights)
    rejecting = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    shared = {"dataset_name": str(task / "grpo"), "system_prompt": "sort", "max_steps": 1}
    template.write_text(rejecting + template.read_text())
    error = rejected(run_recipe("grpo", ok=False, model_name_or_path=model, **shared))
    assert "`model_name_or_path` has a chat template that rejects the chat" in error and "No system role" in error
    whole = shutil.copytree(task / "model", tmp_path / "whole")
    template = whole / "chat_template.jinja"
    template.write_text(template.read_text().replace("in messages %}", "in messages if message['role'] != 'system' %}"))
    output = run_recipe(
        "grpo", model_name_or_path=str(whole), dry_run=True, **{**shared, "system_prompt": "trot"}
    ).output
    assert "WARNING: the model's chat template leaves out the system message 'trot'" in output


def test_model_without_tokenizer_is_named(run_recipe, no_weights):
    for file in no_weights.glob("tokenizer*"):
        file.unlink()
    error = rejected(run_recipe("sft", ok=False, model_name_or_path=str(no_weights), max_steps=1))
    assert "`model_name_or_path` has no tokenizer that loads" in error


def test_text_is_trained_on_without_a_chat_template(run_recipe, task, tmp_path):
    model = shutil.copytree(task / "model", tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    path = write(tmp_path / "own.jsonl", [{"prompt": "sort 21", "completion": "12"}] * 16)
    given = {"dataset_name": str(path), "model_name_or_path": str(model), "max_steps": 1}
    assert len(run_recipe("sft", **given).logged("loss")) == 1


def test_max_length_that_drops_all_rows_is_named_before_loading(run_recipe, no_weights, tmp_path):
    path = write(tmp_path / "own.jsonl", [{"prompt": CHAT[:1], "completion": CHAT[1:]}] * 16)
    given = {"dataset_name": str(path), "max_length": 8, "max_steps": 1}
    error = rejected(run_recipe("sft", ok=False, model_name_or_path=str(no_weights), **given))
    message = "`max_length` is too small: the prompts of all 16 rows fill it, and nothing is left to train on"
    assert f"{message}, received 8; the shortest prompt has 10 tokens" in error


@drops_rows
@pytest.mark.parametrize("recipe", ["sft", "dpo"])
def test_max_length_that_drops_all_of_many_rows_is_named(run_recipe, recipe):
    error = rejected(run_recipe(recipe, ok=False, max_length=8, max_steps=1))
    assert re.search(r"`max_length` is too small: the prompts of all (400|399) rows fill it", error)


@drops_rows
def test_rows_dropped_by_max_length_are_counted(run_recipe, tmp_path):
    long = [{"role": "user", "content": "sort 98765432101234567890"}]
    rows = [{"prompt": prompt, "completion": CHAT[1:]} for prompt in [CHAT[:1]] * 13 + [long] * 3]
    given = {"dataset_name": str(write(tmp_path / "own.jsonl", rows)), "max_steps": 1, "dry_run": True}
    assert "WARNING: max_length 16 drops 3 of 16 rows" in run_recipe("sft", max_length=16, **given).output
    assert "max_length" not in run_recipe("sft", max_length=64, **given).output.replace("`max_length`", "")


def test_text_unknown_to_the_tokenizer_is_warned_of(run_recipe, tmp_path):
    rows = [{"question": "sort 21", "answer": "#### 12"}] * 16
    given = {"dataset_name": str(write(tmp_path / "own.jsonl", rows)), "max_steps": 1, "dry_run": True}
    output = run_recipe("sft", max_length=256, **given).output
    assert re.search(
        r"WARNING: \d\d% of the tokens of the first 16 rows are unknown to the tokenizer \(<unk>\)", output
    )
    assert "the answers look like GSM8K's, so its instruction follows each question" in output
    known = write(tmp_path / "known.jsonl", [{"question": "sort 21", "answer": "12"}] * 16)
    output = run_recipe("sft", **{**given, "dataset_name": str(known)}).output
    assert "unknown to the tokenizer" not in output and "GSM8K" not in output


def test_header_of_a_run_names_columns_and_instruction(run_recipe, tmp_path):
    rows = [{"question": "sort 21", "answer": "#### 12", "source": "web"}] * 16
    path = write(tmp_path / "own.jsonl", rows)
    output = run_recipe("sft", dataset_name=str(path), max_steps=1, max_length=256).output
    shown = (
        "(train): `question`, `answer`; not used: `source`; the answers look like GSM8K's, so its instruction follows"
    )
    assert shown in " ".join(output.split())


def test_dry_run_shows_what_of_a_chat_is_trained_on(run_recipe, task, tmp_path):
    model = shutil.copytree(task / "model", tmp_path / "model")
    path = write(tmp_path / "own.jsonl", [{"messages": LONG}] * 16)
    given = {"dataset_name": str(path), "model_name_or_path": str(model), "dry_run": True, "max_steps": 1}
    first, last = "<|user|>sort 21<|end|><|assistant|>12<|end|>", "<|user|>sort 7531<|end|><|assistant|>"
    output = run_recipe("sft", **given).output
    assert f"«{first}{last}1357<|end|>»" in output and "trained on 100% of the tokens" in output
    output = run_recipe("sft", completion_only_loss=True, **given).output
    assert f"{first}{last}«1357<|end|>»" in output and "trained on 17% of the tokens" in output
    error = rejected(run_recipe("sft", ok=False, assistant_only_loss=True, **given))
    assert "`assistant_only_loss` needs a chat template that marks the assistant's turns" in error
    template = model / "chat_template.jinja"
    marked = "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    template.write_text(
        "{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'assistant' %}"
        + marked
        + "{% else %}{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
        + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    output = run_recipe("sft", assistant_only_loss=True, **given).output
    assert f"{first.replace('12<|end|>', '«12<|end|>»')}{last}«1357<|end|>»" in output


@pytest.mark.parametrize("loss", ["completion_only_loss", "assistant_only_loss"])
def test_loss_on_a_part_of_plain_text_is_rejected_before_loading(run_recipe, no_weights, tmp_path, loss):
    path = write(tmp_path / "own.jsonl", [{"text": "sort 21"}] * 16)
    given = {"dataset_name": str(path), "model_name_or_path": str(no_weights), "max_steps": 1, loss: True}
    assert f"`{loss}` needs " in rejected(run_recipe("sft", ok=False, **given))


def test_system_prompt_is_trained_with(run_recipe, tmp_path):
    path = write(tmp_path / "own.jsonl", [{"question": "sort 21", "answer": "12"}] * 16)
    given = {"dataset_name": str(path), "system_prompt": "sort", "dry_run": True, "max_steps": 1}
    assert "<|system|>sort<|end|><|user|>sort 21<|end|>" in run_recipe("sft", **given).output
    assert run_recipe("grpo", **given).returncode == 0


def test_held_out_rows_of_one_file_are_evaluated_on(run_recipe, tmp_path):
    rows = [{"question": f"sort {number}", "answer": "".join(sorted(str(number)))} for number in range(100, 164)]
    path = str(write(tmp_path / "own.jsonl", rows))
    given = {"dataset_name": path, "test_split_size": 0.25, "eval_strategy": "steps", "max_steps": 1, "eval_steps": 1}
    short = {"evaluate_on": path, "evaluate_max_problems": 2, "evaluate_max_new_tokens": 4, "system_prompt": "sort"}
    run = run_recipe("sft", **given, **short)
    assert len(run.logged("eval_loss")) == 1
    for result in json.loads((run.folder / "evaluation.json").read_text()).values():
        settings = [result["settings"][key] for key in ("test_split_size", "system_prompt", "instruction")]
        assert settings == [0.25, "sort", None]
        assert [message["role"] for message in result["completions"][0]["prompt"]] == ["system", "user"]
