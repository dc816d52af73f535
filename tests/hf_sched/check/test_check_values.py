"""Values: types, numbers and truth as text, words out of few, numbers out of bounds."""

from __future__ import annotations

import pytest

from hf_sched.check.bounds import BOUNDS
from hf_sched.check.choices import words_compared
from hf_sched.check.subject import arguments_of
from hf_sched.check.values import ALSO_TAKEN, scientific
from hf_sched.plan.training_config import KINDS
from tests.helpers.findings import assert_error, find, refused, report, report_of_text


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
        ("eval_strategy", False, 'YAML reads no as false: write "no" in quotes'),
        ("include_num_input_tokens_seen", "all", "must be true or false for TRL's parser"),
        ("eval_strategy", True, "must be one of no, steps, epoch, received true"),
        ("output_dir", ["a"], "must be text, received a list, [a]: write a"),
    ],
)
def test_what_the_dataclass_or_its_parser_refuses_is_an_error(key, value, part):
    assert_error(find(**{key: value}), key, part)
    assert refused(**{key: value})


@pytest.mark.parametrize(
    ("kind", "key", "value", "part"),
    [
        ("sft", "max_steps", 1.5, "must be a whole number, received 1.5"),
        ("sft", "seed", 42.0, "write 42"),
        ("sft", "learning_rate", None, "must be a number, received nothing"),
        ("sft", "label_names", "x", "write [x]"),
        ("sft", "lr_scheduler_kwargs", ["a"], "must be a mapping"),
        ("sft", "lr_scheduler_kwargs", "min_lr=1", "must be a mapping, or one in JSON"),
        ("sft", "dtype", "bf16", "one of auto, bfloat16, float16, float32"),
        ("sft", "log_level", "loud", "one of detail"),
        ("sft", "loss_type", "foo", "one of nll, dft"),
        ("grpo", "loss_type", "foo", "dapo"),
        ("dpo", "loss_type", "sigmoyd", "did you mean 'sigmoid'"),
        ("dpo", "loss_type", ["sigmoid", "foo"], "received 'foo'"),
        ("grpo", "importance_sampling_level", "word", "one of token, sequence"),
        ("sft", "report_to", "wanb", "did you mean 'wandb'"),
        ("sft", "report_to", None, "write none"),
        ("grpo", "reward_weights", [1.0, "a"], "item 2"),
    ],
)
def test_what_gets_through_and_fails_later_is_an_error(kind, key, value, part):
    """YAML values are defaults to argparse, which neither converts what is no text nor compares it with the choices."""
    assert_error(find(kind, **{key: value}), key, part)
    assert refused(kind, **{key: value}) is None


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("learning_rate", "1e-7", "write 1.0e-07"),
        ("per_device_train_batch_size", "8", "write 8"),
        ("bf16", "yes", "write true"),
        ("fp16", 0, "write false"),
        ("run_name", 42, 'write "42"'),
    ],
)
def test_what_trls_parser_mends_is_a_warning(key, value, instead):
    found = find(**{key: value})
    assert (found.severity, found.key) == ("warning", key)
    assert instead in found.message
    assert refused(**{key: value}) is None


def test_numbers_as_text_are_errors_where_nothing_converts_them():
    assert_error(find("trainer", learning_rate="1e-7"), "learning_rate", "write 1.0e-07")
    from transformers import HfArgumentParser, TrainingArguments

    with pytest.raises(TypeError, match="str"):
        HfArgumentParser(TrainingArguments).parse_dict({"warmup_steps": "1e1", "use_cpu": True})


def test_yaml_reads_a_number_without_a_point_as_text(tmp_path):
    (found,) = report_of_text("learning_rate: 2e-5\n", tmp_path, "sft").findings
    assert (found.value, found.line) == ("2e-5", 1)
    assert "write 2.0e-05" in found.message
    assert not report_of_text("learning_rate: 2.0e-05\n", tmp_path, "sft").findings


def test_numbers_are_written_so_that_yaml_reads_them():
    import yaml

    for number in (1e-7, 2.5e-5, 1e20, 0.1, 3.0):
        assert yaml.safe_load(scientific(number)) == number


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
def test_what_is_right_is_let_through(given):
    assert not report(**given).findings
    assert refused(**given) is None


def test_right_values_of_other_kinds():
    assert not report("dpo", loss_type="sigmoid").findings
    assert not report("dpo", loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]).findings
    assert not report("grpo", scale_rewards=False, loss_type="dr_grpo").findings


def test_rewards_are_names_or_mappings_with_a_name():
    weighted = {"name": "answer_format", "format": "hashes", "weight": 0.2}
    assert not report("grpo", reward_funcs=["accuracy", weighted]).findings
    for wrong in ({"format": "hashes"}, 3):
        assert_error(find("grpo", reward_funcs=["accuracy", wrong]), "reward_funcs", "item 2")


def test_unknown_keys_within_a_mapping():
    assert_error(find(accelerator_config={"split_batch": True}), "accelerator_config.split_batch", "`split_batches`")
    assert_error(find(datasets=[{"id": "x"}]), "datasets.id", "it takes path")


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
def test_numbers_that_make_no_sense(given, part):
    assert_error(find(**given), next(iter(given)), part)


def test_numbers_that_are_odd_are_warnings():
    for given in ({"learning_rate": 0}, {"learning_rate": 2}, {"warmup_steps": 1.5}, {"max_steps": 0}):
        assert find(**given).severity == "warning"


def test_what_is_named_here_are_arguments():
    known = {name for kind in KINDS for name in arguments_of(kind)}
    assert {*BOUNDS, *ALSO_TAKEN} <= known


def test_no_default_of_the_installed_version_is_a_mistake():
    """All defaults written out must give nothing but what is deprecated."""
    from enum import Enum

    for kind in KINDS:
        defaults = {
            name: argument.default.value if isinstance(argument.default, Enum) else argument.default
            for name, argument in arguments_of(kind).items()
            if argument.default is not None
        }
        assert [f for f in report(kind, **defaults).findings if "deprecated" not in f.message] == [], kind


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("grpo", "loss_type"),
        ("dpo", "loss_type"),
        ("grpo", "importance_sampling_level"),
        ("grpo", "vllm_importance_sampling_mode"),
    ],
)
def test_the_words_read_from_the_code_are_those_of_the_documentation(kind, name):
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
    default = arguments_of(kind)[name].default
    assert default is None or default in words
