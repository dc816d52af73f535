"""What is wrong with arguments together: schedule and length, generations, DeepSpeed, strategies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hf_sched.check import check
from hf_sched.plan.training_config import TrainingConfig
from tests.helpers.findings import assert_error, find, refused, report, report_of_text

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_the_shipped_configs_have_no_findings(path):
    config = TrainingConfig.read(path)
    assert check(config, dataset_size=7473).findings == ()
    assert check(config, dataset_size=7473).not_judged == ()


def builtin(name: str, steps: int = 100, **kwargs):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    return get_scheduler(name, optimizer, 0, steps, kwargs)


# Our schedules.


def ours(name: str = "cosine_floor", *, max_steps: int = 100, warmup_steps: int = 0, **kwargs):
    return report(
        lr_scheduler_type=name,
        lr_scheduler_kwargs=kwargs,
        max_steps=max_steps,
        learning_rate=1e-4,
        warmup_steps=warmup_steps,
    )


def test_every_wrong_argument_of_a_schedule_is_found_at_once():
    found = ours(flor_ratio=0.1, floor_ratio=2, on_resume="kep", min_lr="1e-3").findings
    assert {finding.key.split(".")[1] for finding in found} == {"flor_ratio", "floor_ratio", "on_resume", "min_lr"}
    assert any("did you mean 'floor_ratio'" in finding.message for finding in found)


@pytest.mark.parametrize(
    ("name", "kwargs", "key", "part"),
    [
        ("cosine_floor", {"min_lr": 1e-3}, "min_lr", "at most the peak learning rate 0.0001"),
        ("cosine_floor", {"min_lr": 1e-5, "floor_ratio": 0.1}, "min_lr", "is a second floor"),
        ("wsd", {"decay": 200}, "decay", "200"),
        ("cosine_restarts", {"num_cycles": 90}, "num_cycles", "must leave each cycle"),
        ("phases", {"phases": "warmup 5% | hodl"}, "phases", "hold"),
    ],
)
def test_what_our_schedules_refuse_before_the_first_step(name, kwargs, key, part):
    (found,) = ours(name, **kwargs).findings
    assert_error(found, f"lr_scheduler_kwargs.{key}", part)


def test_a_schedule_that_needs_an_argument():
    assert_error(find(lr_scheduler_type="phases", max_steps=10), "lr_scheduler_kwargs", "needs the argument `phases`")


def test_a_cycle_that_would_be_cut_off_is_a_warning():
    (found,) = ours("cosine_restarts", first_cycle=30).findings
    assert (found.severity, found.key) == ("warning", "lr_scheduler_kwargs")
    assert "only 10 are left" in found.message


def test_a_floor_above_the_peak_needs_no_length():
    found = find(lr_scheduler_type="cosine_floor", lr_scheduler_kwargs={"min_lr": 1e-3}, learning_rate=1e-4)
    assert_error(found, "lr_scheduler_kwargs.min_lr", "at most the `learning_rate` 0.0001")


def test_an_unknown_length_is_said():
    checked = report(lr_scheduler_type="cosine_floor", dataset_name="no/such")
    assert checked.ok
    assert "--dataset-size" in checked.not_judged[0]
    assert report(lr_scheduler_type="cosine_floor", dataset_name="no/such", dataset_size=1000).not_judged == ()


@pytest.mark.parametrize("name", ["cosine_floor", "linear"])
def test_a_warmup_longer_than_the_run(name):
    found = find(lr_scheduler_type=name, warmup_steps=100, max_steps=100)
    assert_error(found, "warmup_steps", "a warmup of 100 steps in a run of 100 (`max_steps`)")
    by_data = find(
        lr_scheduler_type=name,
        warmup_steps=100,
        num_train_epochs=1,
        per_device_train_batch_size=8,
        dataset_size=400,
        world_size=2,
    )
    assert_error(by_data, "warmup_steps", "in a run of 25 (400 samples on 2 processes)")
    assert not report(lr_scheduler_type=name, warmup_steps=99, max_steps=100).findings


def test_a_name_that_is_none():
    found = find(lr_scheduler_type="cosin_floor")
    assert_error(found, "lr_scheduler_type", "did you mean 'cosine_floor'?")
    assert refused(lr_scheduler_type="cosin_floor")


def test_text_that_is_a_number_is_one_in_our_arguments():
    assert not ours(min_lr="1e-7").findings


# transformers' own.


@pytest.mark.parametrize(
    ("name", "kwargs", "key", "part"),
    [
        ("linear", {"min_lr": 1e-6}, "min_lr", "takes none: leave it out; hf_sched's schedules take it"),
        ("cosine", {"num_cycle": 1}, "num_cycle", "did you mean 'num_cycles'"),
        ("cosine_with_min_lr", {"min_lr": "1e-6"}, "min_lr", "write 1.0e-06"),
        ("cosine_with_min_lr", {"min_lr": 1e-6, "min_lr_rate": 0.1}, "min_lr", "Only one of min_lr or min_lr_rate"),
        ("warmup_stable_decay", {"num_decay_steps": 10, "decay_type": "sqrt"}, "decay_type", "1-sqrt"),
        ("cosine", {"num_training_steps": 10}, "num_training_steps", "is set by the Trainer"),
        ("polynomial", {"lr_end": 1.0}, "lr_end", "lr_end"),
    ],
)
def test_what_transformers_refuses_when_the_trainer_is_made(name, kwargs, key, part):
    found = find(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, learning_rate=1e-4)
    assert found.severity == "error" and part in found.message, found
    assert key in found.key + found.message
    with pytest.raises((TypeError, ValueError)):
        scheduler = builtin(name, **kwargs)
        scheduler.lr_lambdas[0](100)


def test_what_a_builtin_needs():
    found = find(lr_scheduler_type="cosine_with_min_lr")
    assert_error(found, "lr_scheduler_type", "write lr_scheduler_kwargs: {min_lr_rate: 0.1}")
    with pytest.raises(ValueError, match="One of min_lr"):
        builtin("cosine_with_min_lr")
    found = find(lr_scheduler_type="warmup_stable_decay", max_steps=100)
    assert_error(found, "lr_scheduler_type", "{num_decay_steps: N}")


def test_what_transformers_drops_silently():
    assert_error(
        find(lr_scheduler_type="constant", lr_scheduler_kwargs={"min_lr": 1e-6}),
        "lr_scheduler_kwargs.min_lr",
        "takes none",
    )
    assert builtin("constant", min_lr=1e-6)
    found = find(lr_scheduler_type="constant", warmup_steps=10)
    assert_error(found, "warmup_steps", "write lr_scheduler_type: constant_with_warmup")


@pytest.mark.parametrize("kwargs", [{"min_lr": 1e-3}, {"min_lr_rate": 2.0}])
def test_a_floor_above_the_peak_which_transformers_climbs_to(kwargs):
    found = find(lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs=kwargs, learning_rate=1e-4)
    assert found.severity == "error"
    scheduler = builtin("cosine_with_min_lr", **kwargs)
    assert scheduler.lr_lambdas[0](100) > 1


def test_a_decay_that_does_not_fit():
    kwargs = {"num_decay_steps": 60, "num_stable_steps": 50}
    found = find(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=kwargs, max_steps=100)
    assert_error(found, "lr_scheduler_kwargs.num_decay_steps", "50 stable + 60 decay = 110 steps do not fit")
    assert builtin("warmup_stable_decay", **kwargs).lr_lambdas[0](99) > 0.01  # it was to be 0
    short = {"num_decay_steps": 10, "num_stable_steps": 50}
    found = find(lr_scheduler_type="warmup_stable_decay", lr_scheduler_kwargs=short, max_steps=100)
    assert found.severity == "warning"


def test_builtins_that_are_right():
    for name, kwargs in (
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("cosine_with_restarts", {"num_cycles": 2}),
        ("polynomial", {"power": 2.0}),
        ("inverse_sqrt", {"timescale": 100}),
        ("warmup_stable_decay", {"num_decay_steps": 20}),
        ("constant_with_warmup", {}),
    ):
        given = {"lr_scheduler_type": name, "lr_scheduler_kwargs": kwargs, "max_steps": 100, "warmup_steps": 10}
        assert report(**given).findings == (), name
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {"factor": 0.5}}
    assert report(**plateau, eval_strategy="steps").findings == ()
    assert find(lr_scheduler_type="reduce_lr_on_plateau").key == "lr_scheduler_type"
    assert refused(lr_scheduler_type="reduce_lr_on_plateau")


# Generations.


@pytest.mark.parametrize(
    ("given", "key", "part"),
    [
        ({"per_device_train_batch_size": 4, "num_generations": 3}, "num_generations", "write num_generations: 2"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size", "8 completions"),
        ({"generation_batch_size": 12}, "generation_batch_size", "multiple of per_device_train_batch_size * processes"),
        ({"generation_batch_size": 8, "steps_per_generation": 2}, "steps_per_generation", "leave one of them out"),
        ({"num_generations": 1}, "num_generations", "2 or more"),
        ({"auto_find_batch_size": True}, "auto_find_batch_size", "leave it out"),
        ({"eval_strategy": "steps", "per_device_eval_batch_size": 4}, "per_device_eval_batch_size", "size: 8"),
    ],
)
def test_groups_of_completions_fill_their_batches(given, key, part):
    found = report("grpo", world_size=1, **given).findings
    assert_error(found[0], key, part)
    assert refused("grpo", **given)


def test_groups_on_several_processes(tmp_path):
    given = {"per_device_train_batch_size": 4, "num_generations": 8}
    assert not report("grpo", world_size=2, **given).findings
    unknown = report("grpo", **given)
    assert unknown.ok and "--world-size" in unknown.not_judged[0] and "2, 4" in unknown.not_judged[0]
    (tmp_path / "two.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    text = f"# accelerate launch --config_file {tmp_path}/two.yaml recipes/grpo.py --config x.yaml\nmax_steps: 5\n"
    body = "per_device_train_batch_size: 4\nnum_generations: {}\nreward_funcs: [a]\n"
    assert not report_of_text(text + body.format(8), tmp_path).findings
    (found,) = report_of_text(text + body.format(16), tmp_path).findings
    assert_error(found, "num_generations", "per_device_train_batch_size 4 * steps_per_generation 1 * 2 processes")


# DeepSpeed.


def deepspeed(tmp_path: Path, config: dict, **given):
    (tmp_path / "ds.json").write_text(json.dumps(config))
    return report(deepspeed=str(tmp_path / "ds.json"), **given).findings


def test_a_scheduler_of_deepspeeds_own(tmp_path):
    (found,) = deepspeed(tmp_path, {"scheduler": {"type": "WarmupLR"}}, lr_scheduler_type="cosine_floor", max_steps=9)
    assert_error(found, "deepspeed", "`scheduler` of its own (WarmupLR), which wins silently over lr_scheduler_type")


def test_deepspeed_by_the_accelerate_configuration_of_the_launch_line(tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({"scheduler": {"type": "WarmupLR"}}))
    launch = {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "ds.json"}}
    (tmp_path / "zero.yaml").write_text(json.dumps({**launch, "num_processes": 2}))
    text = f"# accelerate launch --config_file {tmp_path}/zero.yaml sft.py\nmax_steps: 10\n"
    (found,) = report_of_text(text, tmp_path, "sft").findings
    assert "wins silently" in found.message and "zero.yaml" in found.key


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}, "optimizer.params.lr to 0.001"),
        ({"gradient_accumulation_steps": 4}, "`gradient_accumulation_steps` is 1"),
        ({"train_micro_batch_size_per_gpu": 4}, "`per_device_train_batch_size` is 8"),
        ({"fp16": {"enabled": True}}, "fp16.enabled to true, but `fp16` is false"),
    ],
)
def test_what_deepspeed_sets_differently_is_what_the_trainer_refuses(tmp_path, config, part):
    (found,) = deepspeed(tmp_path, config, learning_rate=1e-4)
    assert_error(found, "deepspeed", part)
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
    from trl import SFTConfig

    theirs = HfTrainerDeepSpeedConfig(config)
    theirs.trainer_config_process(SFTConfig("out", learning_rate=1e-4, use_cpu=True, bf16=True))
    assert len(theirs.mismatches) == 1


def test_deepspeed_left_to_the_trainer(tmp_path):
    auto = {"optimizer": {"type": "AdamW", "params": {"lr": "auto"}}, "gradient_accumulation_steps": "auto"}
    assert deepspeed(tmp_path, auto) == ()
    assert "no such file" in report(deepspeed="no/such.json").not_judged[0]


# Strategies.


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"load_best_model_at_end": True, "eval_strategy": "epoch"}, "load_best_model_at_end"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 30, "save_steps": 100},
            "save_steps",
        ),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 30, "save_steps": 0.5},
            "save_steps",
        ),
        ({"bf16": True, "fp16": True}, "fp16"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_prefetch_factor"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "load_in_4bit"),
    ],
)
def test_what_the_dataclasses_refuse_together(given, key):
    found = find(**given)
    assert (found.severity, found.key) == ("error", key)
    assert refused(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 50, "save_steps": 100},
        {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 0.3},
        {"load_best_model_at_end": True, "save_strategy": "best", "eval_strategy": "epoch"},
        {"fp16": True, "bf16": False},
    ],
)
def test_what_goes_together(given):
    assert not report(**given).findings
    assert refused(**given) is None


def test_what_is_not_used_is_a_warning():
    assert find(max_steps=10, num_train_epochs=3).severity == "warning"
    assert find(eval_steps=10).severity == "warning"


def test_losses_and_their_weights():
    assert_error(find("dpo", loss_type=["sigmoid", "sft"], loss_weights=[1.0]), "loss_weights", "a weight for each")
    assert refused("dpo", loss_type=["sigmoid", "sft"], loss_weights=[1.0])


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"log_completions_hub_repo": "me/x"}, "log_completions_hub_repo"),
        ({"vllm_importance_sampling_clip_min": 4.0}, "vllm_importance_sampling_clip_min"),
    ],
)
def test_rules_that_only_the_dataclass_knows(given, key):
    assert_error(find("grpo", world_size=8, **given), key, "is refused by GRPOConfig")
    assert refused("grpo", **given)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"pad_token": "x"}, "`pad_token` is deprecated"),
        ({"truncation_mode": "keep_end"}, "keep_start"),
        ({"packing_strategy": "bfd-requeue"}, "bfd_split"),
        ({"loss_type": "chunked_nll"}, "nll"),
    ],
)
def test_what_the_dataclass_warns_of(given, part):
    found = find(**given)
    assert (found.severity, found.key) == ("warning", next(iter(given)))
    assert part in found.message
    assert refused(**given) is None


def test_hardware_is_not_judged():
    assert not report(bf16=True, tf32=True, torch_compile=True, fsdp=True).findings
    assert not report("trainer", bf16=True, bf16_full_eval=True, optim="adamw_bnb_8bit").findings
