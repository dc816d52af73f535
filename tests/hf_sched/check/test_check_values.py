"""Values: wrong types, numbers and booleans as text, words out of a few, numbers out of range."""

from __future__ import annotations

from enum import Enum

import pytest
import yaml

from hf_sched.check.bounds import BOUNDS
from hf_sched.check.choices import words_compared
from hf_sched.check.renamed import as_yaml
from hf_sched.check.values import ALSO_ACCEPTED
from hf_sched.plan.training_config import KINDS, arguments_of
from tests.helpers.findings import assert_error, find, rejection, report, report_of_text


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("adam_beta2", "x", "must be a number, received the text 'x'"),
        ("max_steps", "1.5", "must be a whole number"),
        ("bf16", "maybe", "must be true or false"),
        ("optim", None, "received nothing"),
        ("save_strategy", "step", "one of no, steps, epoch, best, received 'step'; did you mean 'steps'?"),
        ("hub_strategy", "x", "one of end, every_save"),
        ("optim", "adam", "one of adamw_torch"),
        ("eval_strategy", False, 'YAML reads no as false, so write "no" in quotes'),
        ("include_num_input_tokens_seen", "all", "must be true or false for TRL's parser"),
        ("eval_strategy", True, "must be one of no, steps, epoch, received true"),
        ("output_dir", ["a"], "must be text, received a list, [a]: write a"),
    ],
)
def test_values_that_dataclass_or_parser_reject_are_errors(key, value, part):
    assert_error(find(**{key: value}), key, part)
    assert rejection(**{key: value})


@pytest.mark.parametrize(
    ("kind", "key", "value", "part"),
    [
        ("sft", "max_steps", 1.5, "must be a whole number, received 1.5"),
        ("sft", "max_steps", True, "must be a whole number, received true"),
        ("sft", "seed", 42.0, "write 42"),
        ("sft", "learning_rate", None, "must be a number, received nothing"),
        ("sft", "label_names", "x", "write [x]"),
        ("sft", "lr_scheduler_kwargs", ["a"], "must be a mapping"),
        ("sft", "lr_scheduler_kwargs", "min_lr=1", "must be a mapping, or a mapping in JSON"),
        ("sft", "dtype", "bf16", "one of auto, bfloat16, float16, float32"),
        ("sft", "log_level", "loud", "one of detail"),
        ("sft", "loss_type", "foo", "one of nll, dft"),
        ("grpo", "loss_type", "foo", "dapo"),
        ("dpo", "loss_type", "sigmoyd", "did you mean 'sigmoid'"),
        ("dpo", "loss_type", ["sigmoid", "foo"], "received 'foo'"),
        ("grpo", "importance_sampling_level", "word", "one of token, sequence"),
        ("sft", "report_to", "wanb", "did you mean 'wandb'"),
        ("sft", "report_to", None, "write none"),
        ("grpo", "reward_weights", [1.0, "a"], "item 2 must be a number"),
    ],
)
def test_values_that_pass_the_parser_and_fail_later_are_errors(kind, key, value, part):
    """YAML values are defaults of argparse, which neither converts them nor compares them with the choices."""
    assert_error(find(kind, **{key: value}), key, part)
    assert rejection(kind, **{key: value}) is None


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("learning_rate", "1e-7", "write 1.0e-07"),
        ("per_device_train_batch_size", "8", "write 8"),
        ("max_steps", "100", "write 100"),
        ("bf16", "yes", "write true"),
        ("fp16", 0, "write false"),
        ("run_name", 42, 'write "42"'),
    ],
)
def test_values_that_trls_parser_converts_are_warnings(key, value, remedy):
    found = find(**{key: value})
    assert (found.severity, found.key) == ("warning", key)
    assert remedy in found.message
    assert rejection(**{key: value}) is None


def test_numbers_as_text_are_errors_if_no_parser_converts_them():
    assert_error(find("trainer", learning_rate="1e-7"), "learning_rate", "write 1.0e-07")
    from transformers import HfArgumentParser, TrainingArguments

    with pytest.raises(TypeError, match="str"):
        HfArgumentParser(TrainingArguments).parse_dict({"warmup_steps": "1e1", "use_cpu": True})


def test_a_number_without_a_point_is_text_in_yaml(tmp_path):
    (found,) = report_of_text("learning_rate: 2e-5\n", tmp_path).findings
    assert (found.value, found.line) == ("2e-5", 1)
    assert "write 2.0e-05" in found.message
    assert not report_of_text("learning_rate: 2.0e-05\n", tmp_path).findings
    for number in (1e-7, 2.5e-5, 1e20, 0.1, 3.0):
        assert yaml.safe_load(as_yaml(number)) == number


@pytest.mark.parametrize(
    "given",
    [
        {"lora_target_modules": "all-linear"},
        {"lora_target_modules": ["q_proj"]},
        {"fsdp": True},
        {"resume_from_checkpoint": True},
        {"report_to": "none"},
        {"report_to": ["wandb"]},
        {"warmup_steps": 10},
        {"max_length": None},
        {"max_length": "none"},
        {"lr_scheduler_kwargs": '{"num_cycles": 1}', "lr_scheduler_type": "cosine"},
        {"datasets": [{"path": "x", "split": "train"}]},
        {"save_steps": 0.1},
        {"logging_steps": 5},
        {"deepspeed": None},
        {"pad_to_multiple_of": "auto"},
    ],
)
def test_right_values_have_no_findings(given):
    assert not report(**given).findings
    assert rejection(**given) is None


def test_right_values_of_other_trainers_have_no_findings():
    assert not report("dpo", loss_type="sigmoid").findings
    assert not report("dpo", loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]).findings
    assert not report("grpo", scale_rewards=False, loss_type="dr_grpo").findings


def test_unknown_keys_of_a_nested_mapping_are_errors():
    assert_error(find(accelerator_config={"split_batch": True}), "accelerator_config.split_batch", "`split_batches`")
    assert_error(find(datasets=[{"id": "x"}]), "datasets.id", "it has path")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"per_device_train_batch_size": 0}, "1 or more, received 0"),
        ({"gradient_accumulation_steps": -1}, "1 or more"),
        ({"learning_rate": -1e-4}, "0 or more"),
        ({"warmup_steps": -5}, "0 or more"),
        ({"adam_beta2": 1.5}, "from 0 to 1"),
        ({"save_steps": 0}, "above 0"),
        ({"logging_steps": 0}, "above 0"),
        ({"logging_steps": 1.5}, "a whole number of steps"),
        ({"lora_dropout": 2}, "from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_errors(given, part):
    assert_error(find(**given), next(iter(given)), part)


def test_suspicious_numbers_are_warnings():
    for given in ({"learning_rate": 0}, {"learning_rate": 2}, {"warmup_steps": 1.5}, {"max_steps": 0}):
        assert find(**given).severity == "warning"


def test_tables_name_arguments_of_the_installed_version():
    known = {name for kind in KINDS for name in arguments_of(kind)}
    assert {*BOUNDS, *ALSO_ACCEPTED} <= known


@pytest.mark.parametrize("kind", KINDS)
def test_no_default_of_the_installed_version_is_a_mistake(kind):
    defaults = {
        name: argument.default.value if isinstance(argument.default, Enum) else argument.default
        for name, argument in arguments_of(kind).items()
        if argument.default not in (None, [])
    }
    assert [found for found in report(kind, **defaults).findings if "deprecated" not in found.message] == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("grpo", "loss_type"),
        ("dpo", "loss_type"),
        ("grpo", "importance_sampling_level"),
        ("grpo", "vllm_importance_sampling_mode"),
    ],
)
def test_words_from_the_code_are_those_of_the_documentation(kind, name):
    import re

    import trl

    text = next(
        field.metadata["help"]
        for field in getattr(trl, f"{kind.upper()}Config").__dataclass_fields__.values()
        if field.name == name
    )
    words = words_compared(kind, name)
    assert len(words) > 1
    documented = set(re.findall(r"[`'\"]+([a-z][a-z_]+)[`'\"]+", text)) - {name, "log_ratio"}
    assert {word for word in documented if "_" in word or word in words} <= {*words, *arguments_of(kind)}
    default = arguments_of(kind)[name].default or []
    assert set(default if isinstance(default, list) else [default]) <= set(words)
