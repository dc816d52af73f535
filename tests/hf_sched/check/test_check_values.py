"""Values: wrong types, numbers and booleans as text, words out of a few, numbers out of range."""

from __future__ import annotations

from enum import Enum

import pytest
from transformers import HfArgumentParser, TrainingArguments

from hf_sched.check.values import ALSO_ACCEPTED, BOUNDS
from hf_sched.plan.training_config import KINDS, arguments_of
from tests.helpers.findings import assert_error, find, rejection, report

# Kind, key, value, severity, a part of the message, and whether TRL's parser accepts the value.
CASES = (
    ("sft", "adam_beta2", "x", "error", "must be a number, received the text 'x'", False),
    ("sft", "bf16", "maybe", "error", "must be true or false", False),
    ("sft", "optim", None, "error", "received nothing", False),
    ("sft", "save_strategy", "step", "error", "one of no, steps, epoch, best, received 'step'; did you mean", False),
    ("sft", "eval_strategy", False, "error", 'YAML reads no as false, so write "no" in quotes', False),
    # YAML values are defaults of argparse, which neither converts them nor compares them with the choices.
    ("sft", "warmup_steps", "5%", "error", "received the text '5%': write 0.05", False),
    ("sft", "max_steps", "100", "warning", "is text: write 100 without quotes", True),
    ("sft", "max_steps", 1.5, "error", "must be a whole number, received 1.5", True),
    ("sft", "learning_rate", None, "error", "must be a number, received nothing", True),
    ("sft", "label_names", "x", "error", "write [x]", True),
    ("sft", "lr_scheduler_kwargs", "min_lr=1", "error", "must be a mapping, a mapping in JSON", False),
    ("grpo", "loss_type", "foo", "error", "dapo", True),
    ("dpo", "loss_type", ["sigmoid", "foo"], "error", "received 'foo'", True),
    ("grpo", "reward_weights", [1.0, "a"], "error", "a list (each item a number), received [1.0, a]", True),
    # The parser converts these.
    ("sft", "learning_rate", "1e-7", "warning", "write 1.0e-07", True),
    ("sft", "bf16", "yes", "warning", "write true", True),
    ("sft", "fp16", 0, "warning", "write false", True),
    ("sft", "run_name", 42, "warning", "write '42'", True),
)


@pytest.mark.parametrize(("kind", "key", "value", "severity", "part", "accepted"), CASES)
def test_wrong_values_are_reported_with_their_remedy(kind, key, value, severity, part, accepted):
    found = find(kind, **{key: value})
    assert (found.severity, found.key) == (severity, key)
    assert part in found.message, found.message
    assert (rejection(kind, **{key: value}) is None) == accepted


def test_numbers_as_text_are_errors_if_no_parser_converts_them():
    assert_error(find("trainer", learning_rate="1e-7"), "learning_rate", "write 1.0e-07")
    with pytest.raises(TypeError, match="str"):
        HfArgumentParser(TrainingArguments).parse_dict({"warmup_steps": "1e1", "use_cpu": True})


RIGHT = (
    *({"lora_target_modules": "all-linear"}, {"lora_target_modules": ["q_proj"]}, {"fsdp": True}, {"save_steps": 0.1}),
    *({"resume_from_checkpoint": True}, {"report_to": "none"}, {"warmup_steps": 10}),
    *({"max_length": None}, {"max_length": "none"}, {"logging_steps": 5}, {"deepspeed": None}),
    {"lr_scheduler_kwargs": '{"num_cycles": 1}', "lr_scheduler_type": "cosine"},
    *({"datasets": [{"path": "x", "split": "train"}]}, {"pad_to_multiple_of": "auto"}),
)


def test_right_values_have_no_findings():
    for given in RIGHT:
        assert not report(**given).findings
        assert rejection(**given) is None
    assert not report("dpo", loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]).findings
    assert not report("grpo", scale_rewards=False, loss_type="dr_grpo").findings


def test_numbers_out_of_range_are_reported():
    assert_error(find(per_device_train_batch_size=0), "per_device_train_batch_size", "1 or more, received 0")
    assert_error(find(learning_rate=-1e-4), "learning_rate", "0 or more")
    assert_error(find(lora_dropout=2), "lora_dropout", "from 0 to 1")
    assert_error(find(save_steps=0), "save_steps", "above 0")
    assert {*BOUNDS, *ALSO_ACCEPTED} <= {name for kind in KINDS for name in arguments_of(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_no_default_of_the_installed_version_is_a_mistake(kind):
    defaults = {
        name: argument.default.value if isinstance(argument.default, Enum) else argument.default
        for name, argument in arguments_of(kind).items()
        if argument.default not in (None, [])
    }
    assert [found for found in report(kind, **defaults).findings if "deprecated" not in found.message] == []
