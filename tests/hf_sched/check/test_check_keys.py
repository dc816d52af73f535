"""Keys: unknown, misspelt, repeated, of another trainer, of earlier versions."""

from __future__ import annotations

import pytest
import yaml

from hf_sched.check import check
from hf_sched.check.keys import RENAMED
from hf_sched.plan.training_config import KINDS, TrainingConfig, arguments_of
from tests.helpers.findings import assert_error, find, rejection, report, report_of_text

# Old keys with a value, and their new form as YAML.
RENAMED_KEYS = (
    ("warmup_ratio", 0.1, "warmup_steps: 0.1"),
    ("evaluation_strategy", "steps", "eval_strategy: steps"),
    ("max_seq_length", 512, "max_length: 512"),
    ("no_cuda", True, "use_cpu: true"),
    ("group_by_length", True, "train_sampling_strategy: group_by_length"),
    ("lr", 1e-4, "learning_rate: 0.0001"),
)
DEPRECATED_KEYS = ("gradient_checkpointing", "gradient_checkpointing_kwargs")


@pytest.mark.parametrize(("old", "value", "new"), RENAMED_KEYS)
def test_a_renamed_key_is_reported_with_the_line_to_write(old, value, new):
    assert_error(find(**{old: value}), old, f"is not an argument of SFT: write `{new}")
    assert rejection(**{old: value}).startswith("dropped")
    assert rejection(**yaml.safe_load(new)) is None
    assert not report(**yaml.safe_load(new)).errors


def test_advice_on_an_old_key_depends_on_value_and_trainer():
    for removed in ("overwrite_output_dir", "logging_dir", "save_safetensors", "tokenizer", "fp16_backend"):
        assert_error(find(**{removed: True}), removed, "leave it out: ")
        assert rejection(**{removed: True}).startswith("dropped")
    assert_error(find(warmup_ratio=0.1, warmup_steps=0.1), "warmup_ratio", "leave it out, `warmup_steps` is set")
    assert "leave it out: the default is the same" in find(adafactor=False).message
    assert find(gradient_checkpointing=True).severity == "warning"
    assert "deprecated: write `activation_checkpointing: true`" in find(gradient_checkpointing=True).message
    assert "`max_length`, where it exists, limits prompt" in find("grpo", max_prompt_length=512).message
    assert "chat_template_path" in find("sft", chat_template="x").message
    assert "the tokenizer has its own" in find("dpo", chat_template="x").message


def test_the_table_of_renamed_keys_matches_the_installed_version():
    known = {name for kind in KINDS for name in arguments_of(kind)}
    assert RENAMED.keys() & known == set(DEPRECATED_KEYS)
    for key, rows in RENAMED.items():
        assert all(row.to in known if row.to else row.text for row in rows), key


def test_unknown_keys_are_errors_with_the_most_likely_remedy():
    assert_error(find(lerning_rate=1e-4), "lerning_rate", "did you mean `learning_rate`?")
    assert "lerning_rate" in rejection(lerning_rate=1e-4)
    assert_error(find(frobnicate=1), "frobnicate", "--allow frobnicate")
    assert check(TrainingConfig("sft", {"frobnicate": 1}), allow=["frobnicate"]).ok
    assert_error(find("sft", num_generations=8), "num_generations", "is an argument of GRPO and RLOO, not of SFT")
    assert "num_generations" in rejection("sft", num_generations=8)

    # A script for the Trainer usually has more arguments.
    assert find("trainer", model_name_or_path="gpt2").severity == "warning"
    assert_error(find("trainer", lerning_rate=1e-4), "lerning_rate", "`learning_rate`")


def test_keys_of_the_parser_the_launcher_and_trls_scripts_are_known(tmp_path):
    assert not report("grpo", env={"A": 1}, reward_model_name_or_path="x").findings
    assert not report_of_text("num_processes: 2\naccelerate_config: zero2\n", tmp_path).findings
    assert_error(find("sft", reward_funcs=["exact_answer"]), "reward_funcs", "of GRPO and RLOO")


def test_findings_have_the_lines_of_the_file(tmp_path):
    (found,) = report_of_text("max_steps: 10\nlearning_rate: 1.0e-4\nmax_steps: 20\n", tmp_path).findings
    assert_error(found, "max_steps", "2 times (lines 1, 3)")
    assert (found.line, found.value) == (3, 20)
    text = "# comment\n\nlerning_rate: 1\nlr_scheduler_type: linear\nlr_scheduler_kwargs:\n  x: 1\n"
    found = report_of_text(text, tmp_path).findings
    assert [(finding.key, finding.line) for finding in found] == [("lerning_rate", 3), ("lr_scheduler_kwargs.x", 6)]
    (found,) = report_of_text('{\n  "learning_rate": 0.0001,\n  "lerning_rate": 1\n}\n', tmp_path).findings
    assert found.line == 3
