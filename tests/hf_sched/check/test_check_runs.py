"""Arguments that do not go together: generations and processes, DeepSpeed, strategies, rules of the dataclasses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hf_sched.check import check
from hf_sched.cli.training_file import read_training_file
from hf_sched.plan.training_config import TrainingConfig
from tests.helpers.extras import require
from tests.helpers.findings import assert_error, find, rejection, report, report_of_text

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))


def test_shipped_configs_have_no_findings():
    require("trl")
    for path in CONFIGS:
        checked = check(read_training_file(str(path)), dataset_size=7473)
        assert (checked.findings, checked.not_judged) == ((), ()), path
    # Hardware is not judged.
    assert not report(bf16=True, tf32=True, torch_compile=True, fsdp=True).findings


@pytest.mark.parametrize(
    ("given", "key", "part"),
    [
        ({"per_device_train_batch_size": 4, "num_generations": 3}, "num_generations", "write 2, or another batch size"),
        ({"generation_batch_size": 12}, "generation_batch_size", "a multiple of 8 (per_device_train_batch_size 8 x"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size", "leave it out"),
        ({"eval_strategy": "steps", "per_device_eval_batch_size": 4}, "per_device_eval_batch_size", "write 8"),
    ],
)
def test_completions_that_do_not_fill_a_batch_are_errors(given, key, part):
    assert_error(report("grpo", num_processes=1, **given).findings[0], key, part)
    assert rejection("grpo", **given)


def test_completions_are_judged_for_the_given_or_assumed_number_of_processes(tmp_path):
    given = {"per_device_train_batch_size": 4, "num_generations": 8}
    assert not report("grpo", num_processes=2, **given).findings
    assert_error(find("grpo", **given), "num_generations", "1 process is assumed; it fits 2, 4, ...: `--num-processes`")
    (tmp_path / "two.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    text = "max_steps: 5\nper_device_train_batch_size: 4\nnum_generations: {}\nreward_funcs: [a]\n"
    launch = str(tmp_path / "two.yaml")
    assert not report_of_text(text.format(8), tmp_path, None, accelerate_config=launch).findings
    (found,) = report_of_text(text.format(16), tmp_path, None, accelerate_config=launch).findings
    assert_error(found, "num_generations", "per_device_train_batch_size 4 x processes 2 x steps_per_generation 1")
    (found,) = report_of_text(text.format(8) + "accelerate_config: no.yaml\n", tmp_path, None).findings
    assert_error(found, "accelerate_config", "must be a file that exists")


def deepspeed(tmp_path: Path, config: dict, **given):
    (tmp_path / "ds.json").write_text(json.dumps(config))
    return report(deepspeed=str(tmp_path / "ds.json"), **given).findings


def test_a_scheduler_of_deepspeed_is_an_error(tmp_path):
    (found,) = deepspeed(tmp_path, {"scheduler": {"type": "WarmupLR"}}, lr_scheduler_type="cosine_floor", max_steps=9)
    assert_error(found, "deepspeed", "its own `scheduler` (WarmupLR), which silently overrides lr_scheduler_type")
    auto = {"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}, "gradient_accumulation_steps": "auto"}
    assert deepspeed(tmp_path, auto) == ()
    assert "no such file" in report(deepspeed="no/such.json").not_judged[0]


def launched(tmp_path: Path, deepspeed: dict, text: str):
    path = tmp_path / "launch.yaml"
    path.write_text(json.dumps({"distributed_type": "DEEPSPEED", "deepspeed_config": deepspeed}))
    return report_of_text(text, tmp_path, accelerate_config=str(path)).findings


def test_deepspeed_of_the_accelerate_configuration_is_checked(tmp_path):
    file = {"scheduler": {"type": "WarmupLR"}, "gradient_accumulation_steps": "auto"}
    (tmp_path / "ds.json").write_text(json.dumps(file))
    text = "max_steps: 10\ngradient_accumulation_steps: 2\nmax_grad_norm: 1.0\n"
    (found,) = launched(tmp_path, {"deepspeed_config_file": "ds.json"}, text)
    assert_error(found, f"deepspeed_config_file of {tmp_path / 'launch.yaml'}", "its own `scheduler` (WarmupLR)")
    inline = {"gradient_accumulation_steps": 4, "gradient_clipping": 0.5, "zero_stage": 2}
    accumulation, clipping = launched(tmp_path, inline, text)
    assert_error(
        accumulation, "gradient_accumulation_steps", "sets gradient_accumulation_steps to 4, but `gradient_acc"
    )
    assert_error(clipping, "max_grad_norm", "to 0.5, but `max_grad_norm` is 1.0")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"gradient_accumulation_steps": "2"}, ["'2' as gradient_accumulation_steps", "write 2 without quotes"]),
        ({"zero_optimization": {"reduce_bucket_size": "5e8"}}, ["zero_optimization.reduce_bucket_size", "500000000.0"]),
        (
            {"optimizer": {"params": {"betas": [0.9, "0.999"]}}},
            ["optimizer.params.betas", "write 0.999 without quotes"],
        ),
        ({"fp16": {"enabled": "false"}}, ["'false' as fp16.enabled", "write false without quotes"]),
    ],
)
def test_numbers_as_text_in_a_deepspeed_file_are_errors(tmp_path, config, parts):
    given = {"gradient_accumulation_steps": 2, "max_steps": 9}
    (found,) = deepspeed(tmp_path, config, **given)
    assert all(part in found.message for part in parts), found.message
    (inline,) = report(deepspeed=config, **given).findings
    assert_error(inline, "deepspeed", parts[-1])
    words = {"train_batch_size": "auto", "optimizer": {"type": "AdamW"}, "communication_data_type": "fp32"}
    assert deepspeed(tmp_path, words, **given) == ()


def test_batches_and_betas_of_deepspeed_are_compared(tmp_path):
    config = {"train_batch_size": 64, "optimizer": {"params": {"betas": [0.9, 0.95]}}}
    betas, batch = deepspeed(tmp_path, config, per_device_train_batch_size=4, num_processes=2, max_steps=9)
    assert_error(batch, "deepspeed", "train_batch_size to 64, but `per_device_train_batch_size` 4 x processes 2 x accu")
    assert_error(betas, "deepspeed", "to [0.9, 0.95], but `adam_beta1` and `adam_beta2` are [0.9, 0.999]")
    right = {"train_batch_size": 64, "optimizer": {"params": {"betas": [0.9, 0.999]}}}
    given = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8, "num_processes": 2, "max_steps": 9}
    assert deepspeed(tmp_path, right, **given) == ()


def test_accumulation_of_accelerate_is_compared_with_that_of_the_run(tmp_path):
    nested = "max_steps: 9\naccelerator_config: {gradient_accumulation_kwargs: {num_steps: 4}}\n"
    assert launched(tmp_path, {"gradient_accumulation_steps": "4"}, nested) == ()  # Accelerate converts its own text
    (found,) = launched(tmp_path, {"gradient_accumulation_steps": 2}, nested)
    assert_error(found, "gradient_accumulation_steps", "to 2, but `gradient_accumulation_steps` is 4")
    # A file without accumulation has that of Accelerate's plugin, 1.
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    (found,) = launched(tmp_path, {"deepspeed_config_file": "ds.json"}, nested)
    assert "gradient_accumulation_steps to 1, but" in found.message
    assert launched(tmp_path, {"deepspeed_config_file": "ds.json"}, "max_steps: 9\n") == ()


def test_two_accumulations_or_one_as_text_are_errors():
    def nested(number, **more):
        return report(accelerator_config={"gradient_accumulation_kwargs": {"num_steps": number}}, max_steps=9, **more)

    name = "accelerator_config.gradient_accumulation_kwargs.num_steps"
    assert not nested(4).findings
    (found,) = nested(4, gradient_accumulation_steps=2).findings
    assert_error(found, name, "is set beside `gradient_accumulation_steps`")
    (found,) = nested("4").findings
    assert_error(found, name, "write 4 without quotes")


def test_values_of_deepspeed_that_the_trainer_rejects_are_errors(tmp_path):
    config = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}, "fp16": {"enabled": True}}
    lr, fp16 = deepspeed(tmp_path, config, learning_rate=1e-4)
    assert_error(lr, "deepspeed", "optimizer.params.lr to 0.001")
    assert_error(fp16, "deepspeed", "fp16.enabled to true, but `fp16` is false")
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
    from trl import SFTConfig

    theirs = HfTrainerDeepSpeedConfig(config)
    theirs.trainer_config_process(SFTConfig("out", learning_rate=1e-4, use_cpu=True, bf16=True))
    assert len(theirs.mismatches) == 2


BY_STEPS = {"load_best_model_at_end": True, "eval_strategy": "steps"}


COMBINATIONS = (
    ("load_best_model_at_end", {**BY_STEPS, "eval_steps": 30, "save_steps": 100}),
    ("fp16", {"bf16": True, "fp16": True}),
    ("dataloader_prefetch_factor", {"dataloader_prefetch_factor": 2}),
    ("load_in_4bit", {"load_in_4bit": True, "load_in_8bit": True}),
    ("accelerator_config", {"accelerator_config": {"split_batch": True}}),
    (None, {**BY_STEPS, "eval_steps": 50, "save_steps": 100}),
)


@pytest.mark.parametrize(("key", "given"), COMBINATIONS)
def test_combinations_are_errors_if_the_dataclasses_reject_them(key, given):
    found = [(finding.severity, finding.key) for finding in report(**given).findings]
    assert found == ([("error", key)] if key else [])
    assert bool(rejection(**given)) == bool(key)


def test_arguments_without_effect_are_reported():
    assert find(max_steps=10, num_train_epochs=3).severity == "warning"
    assert find(eval_steps=10).severity == "warning"
    given = {**BY_STEPS, "eval_steps": 100, "save_steps": 100}
    assert_error(find("grpo", **given), "load_best_model_at_end", "metric_for_best_model: eval_reward")
    assert not report("grpo", **given, metric_for_best_model="eval_reward", greater_is_better=True).findings


BEST, METRIC = {"load_best_model_at_end": True}, "metric_for_best_model"


@pytest.mark.parametrize(
    ("kind", "given", "key", "part"),
    [
        ("rloo", {**BEST, METRIC: "loss"}, METRIC, "eval_reward"),
        ("grpo", {"save_strategy": "best", METRIC: "eval_loss"}, METRIC, "eval_reward"),
        ("grpo", {"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type", "compares `eval_loss`"),
        (
            "grpo",
            {**BEST, METRIC: "reward", "greater_is_better": False},
            "greater_is_better",
            "greater values are bett",
        ),
        ("sft", {**BEST, "greater_is_better": True}, "greater_is_better", "smaller values"),
    ],
)
def test_metrics_that_choose_the_wrong_checkpoint_are_errors(kind, given, key, part):
    run = {"eval_strategy": "steps", "eval_steps": 100, "save_steps": 100, "max_steps": 200}
    assert_error(find(kind, **run, **given), key, part)


def test_integrations_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    assert not report(report_to=["tensorboard"]).findings and not report(report_to="none").findings
    for requested in ("wandb", ["tensorboard", "wandb"]):
        found = find(report_to=requested)
        assert (found.severity, found.key) == ("warning", "report_to") and "package of wandb" in found.message


def test_rules_that_only_the_dataclass_knows_are_errors():
    loss = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}
    assert_error(find("dpo", **loss), "loss_type", "is rejected by DPOConfig")
    assert rejection("dpo", **loss)


def test_arguments_of_a_script_are_passed_in_as_dataclasses():
    @dataclass
    class Mine:
        my_rounds: int = 1
        reward_funcs: list[str] | None = None

    assert find(my_rounds=2).key == "my_rounds"
    assert not report(extra=(Mine,), my_rounds=2).findings
    assert_error(find(extra=(Mine,), my_rounds=1.5), "my_rounds", "a whole number")
    assert_error(find(extra=(Mine,), reward_funcs=["a"]), "reward_funcs", "of GRPO and RLOO")
    config = TrainingConfig("grpo", {"reward_funcs": [{"name": "a"}]}, extra=(Mine,))
    assert_error(check(config).findings[0], "reward_funcs", "(each item text)")
