"""The parts of a plan: kind, processes, dataset size, generations, schedule and notes, and rejected arguments."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import Dataset

import hf_sched
from hf_sched.plan import plan
from hf_sched.plan.dataset_size import find_dataset_size
from hf_sched.plan.processes import find_world_size
from hf_sched.plan.training_config import TrainingConfig
from tests.helpers.trainer import train

SFT = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_length": 64}
SPLIT = {"split_batches": True}
ACCUMULATES = {"gradient_accumulation_kwargs": {"num_steps": 4}}
GRPO = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "num_generations": 4}


def sft(**given: Any) -> TrainingConfig:
    return TrainingConfig("sft", {**SFT, **given})


def grpo(**given: Any) -> TrainingConfig:
    return TrainingConfig("grpo", {**GRPO, **given})


def read(tmp_path: Path, text: str, kind: str | None = None, name: str = "config.yaml") -> TrainingConfig:
    path = tmp_path / name
    path.write_text(text)
    return TrainingConfig.read(path, kind)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("num_generations: 8\nbeta: 0.0\n", "grpo", "has `num_generations`"),
        ("beta: 0.1\nmax_length: 512\n", "dpo", "has `beta`"),
        ("learning_rate: 1.0e-5\n", "trainer", "has no key of TRL"),
        # Comments are for people.
        ("# GRPO on top of the model in runs/demo/sft.\nreward_funcs: [a]\nmax_steps: 10\n", "grpo", "`reward_funcs`"),
    ],
)
def test_the_kind_is_the_one_with_most_of_the_keys(tmp_path, text, kind, reason):
    config, requested = read(tmp_path, text), read(tmp_path, text, "rloo")
    assert config.kind == kind
    assert reason in config.kind_reason
    assert (requested.kind, requested.kind_reason) == ("rloo", "")


def test_a_json_file_is_read_and_a_file_without_a_mapping_is_rejected(tmp_path):
    config = read(tmp_path, '{"learning_rate": 1e-5, "num_generations": 4}', name="config.json")
    assert (config.kind, config.given) == ("grpo", {"learning_rate": 1e-5, "num_generations": 4})
    with pytest.raises(ValueError, match=r"must be a mapping of arguments .* received \[1\]"):
        read(tmp_path, "- 1\n")
    with pytest.raises(ValueError, match="does not parse"):
        read(tmp_path, "a: b: c\n")
    with pytest.raises(ValueError, match=r"`kind` must be one of trainer, sft, dpo.*received 'ppo'"):
        read(tmp_path, "learning_rate: 1.0e-5\n", "ppo")


FOUR = "distributed_type: MULTI_GPU\nnum_processes: 4\n"
SHARED = "distributed_type: FSDP\nnum_processes: 4\nparallelism_config: {parallelism_config_cp_size: 2}\n"


@pytest.mark.parametrize(
    ("given", "launch", "processes", "source"),
    [
        ({}, {}, 1, "assumed; set it with `--num-processes`"),
        ({}, {"accelerate_config": "four.yaml"}, 4, "four.yaml"),
        ({}, {"accelerate_config": "zero2"}, 8, "zero2"),
        # `accelerate launch` starts one process for this type, whatever the number.
        ({"accelerate_config": "alone.yaml", "num_processes": 3}, {}, 1, "alone.yaml, which starts one"),
        ({"accelerate_config": "zero2", "num_processes": 3}, {}, 3, "`num_processes`"),
    ],
)
def test_the_number_of_processes_comes_from_flags_or_keys(tmp_path, given, launch, processes, source):
    (tmp_path / "four.yaml").write_text(FOUR)
    (tmp_path / "alone.yaml").write_text("distributed_type: 'NO'\nnum_processes: 4\n")
    comment = "# accelerate launch --config_file four.yaml --num_processes 6 recipes/sft.py\n"  # for people
    config = read(tmp_path, comment + yaml.safe_dump({"max_steps": 3, **given}), "sft")
    found = find_world_size(config, **launch)
    assert (found.processes, found.source, found.assumed) == (processes, source, "assumed" in source)
    planned = plan(config, **launch)
    assert planned.effective_batch == processes * 8
    assert planned.assumed == (("1 process",) if found.assumed else ())
    assert planned.notes == ()


def test_a_missing_or_unsuitable_accelerate_config_is_rejected(tmp_path):
    config = read(tmp_path, "max_steps: 3\n", "sft")
    with pytest.raises(ValueError, match=r"`accelerate_config` must be a file that exists.*received 'no.yaml'"):
        plan(config, accelerate_config="no.yaml")
    (tmp_path / "cp.yaml").write_text(SHARED)
    with pytest.raises(ValueError, match=r"must give every process its own batches.*cp_size.*`--num-processes`"):
        plan(config, accelerate_config="cp.yaml")
    assert plan(config, num_processes=2, accelerate_config="cp.yaml").world_size.processes == 2


ROWS = [{"prompt": f"{i}", "completion": "x"} for i in range(7)]


def test_the_samples_of_files_and_folders_are_counted_by_split(tmp_path):
    rows = Dataset.from_list(ROWS)
    for write, form in ((rows.to_json, "jsonl"), (rows.to_csv, "csv"), (rows.to_parquet, "parquet")):
        write(tmp_path / f"rows.{form}")
        found = find_dataset_size(sft(dataset_name=f"{tmp_path}/rows.{form}"))
        assert (found.samples, found.source) == (7, f"counted in split 'train' of {tmp_path}/rows.{form}")
    folder = tmp_path / "folder"
    rows.to_json(folder / "train.jsonl")
    rows.select([0]).to_json(folder / "test.jsonl")
    for split, samples in (("train", 7), ("test", 1)):
        assert find_dataset_size(sft(dataset_name=str(folder), dataset_train_split=split)).samples == samples
    with pytest.raises(ValueError, match=r"`dataset_train_split` must be one of train, test.*received 'tests'; did"):
        find_dataset_size(sft(dataset_name=str(folder), dataset_train_split="tests"))
    assert find_dataset_size(sft(dataset_name=str(folder)), 3).samples == 3


def test_the_samples_of_a_cached_dataset_are_counted(tmp_path, monkeypatch):
    import datasets

    # The cache of a local file has the same form as that of a dataset of the Hub, except for the name of the folder.
    Dataset.from_list(ROWS).to_json(tmp_path / "rows.jsonl")
    files = str(tmp_path / "rows.jsonl")
    made = datasets.load_dataset_builder("json", data_files=files, cache_dir=str(tmp_path / "a"))
    made.download_and_prepare()
    cached = tmp_path / "cache" / "someone___some_rows" / "default" / "0.0.0" / "abc"
    shutil.copytree(made.cache_dir, cached)
    info = json.loads((cached / "dataset_info.json").read_text())
    named = {**info, "config_name": "default", "dataset_name": "some_rows"}
    (cached / "dataset_info.json").write_text(json.dumps(named))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert find_dataset_size(sft(dataset_name="someone/some_rows")).samples == 7


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sft(), r"`dataset_name` is not set\. Give `--dataset-size N` or write `max_steps`"),
        (sft(dataset_name="runs/no/such"), r"'runs/no/such' cannot be read .* Give `--dataset-size N`"),
        (sft(dataset_name="a/b"), "'a/b' cannot be read .*Couldn't reach 'a/b'"),
        (sft(packing=True, dataset_name="a/b"), r"`packing` joins samples.*`--dataset-size N`, N packed sequences,"),
        (sft(dataset_streaming=True, dataset_name="a/b"), r"the dataset is streamed\. Write `max_steps`"),
    ],
)
def test_without_the_samples_a_plan_needs_max_steps(config, message):
    with pytest.raises(ValueError, match=f"the number of optimizer steps is unknown.*{message}") as failed:
        plan(config)
    planned = plan(TrainingConfig(config.kind, {**config.given, "max_steps": 5}))
    assert (planned.num_training_steps, planned.epochs, planned.steps_per_epoch) == (5, None, None)
    assert planned.dataset_size.samples is None
    assert planned.dataset_size.source in str(failed.value)
    planned = plan(sft(packing=True), dataset_size=40)  # packed sequences
    assert (planned.steps_per_epoch, planned.num_training_steps) == (10, 30)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sft(max_steps=0), r"`max_steps` must be 1 or more, or -1 .* received 0"),
        (sft(save_strategy=False), r'`save_strategy` must be text, received False.*write "no" in quotes'),
        (sft(eval_strategy="step"), r"`eval_strategy` must be one of no, steps, epoch, received 'step'; did you mean"),
        (sft(lr_scheduler_type="cosine_floor", warmup_steps=99), "`num_warmup_steps` must be less than .*received 99"),
        (sft(accelerator_config=SPLIT, per_device_train_batch_size=7), r"a multiple of the 2 processes.*7; write 8"),
        (sft(dataloader_drop_last=True, per_device_train_batch_size=21), r"requires 42 samples .* has 40"),
        (sft(accelerator_config="no.json"), "`accelerator_config` must be a mapping, .* received 'no.json'"),
        (sft(accelerator_config=ACCUMULATES, gradient_accumulation_steps=2), "num_steps` is set beside .*received 4"),
        (grpo(steps_per_generation=32), "requires 64 samples .*has 40"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(config, message):
    with pytest.raises(ValueError, match=message):
        plan(config, dataset_size=40, num_processes=2)


def test_epochs_in_schedule_and_strategies_need_the_samples():
    config = sft(max_steps=9, lr_scheduler_type="wsd", lr_scheduler_kwargs={"decay": "1ep"})
    with pytest.raises(
        hf_sched.DurationUnknown, match=r"`decay` is in epochs \(1ep\).*unknown; give `--dataset-size N`"
    ):
        plan(config)
    assert str(plan(config, dataset_size=16).schedule) == "hold 5 | decay 4 1-sqrt"
    config = sft(max_steps=10, save_strategy="epoch", eval_strategy="epoch")
    planned = plan(config)
    assert (planned.checkpoints, planned.evaluations) == (None, None)
    planned = plan(config, dataset_size=16)
    assert planned.checkpoints == planned.evaluations == (4, 8, 10)


def test_curve_is_that_of_the_schedule():
    run = {"max_steps": 10, "warmup_steps": 0.2}
    planned = plan(sft(lr_scheduler_type="cosine_floor", **run, lr_scheduler_kwargs='{"floor_ratio": 0.1}'))
    schedule = hf_sched.build("cosine_floor", num_training_steps=10, num_warmup_steps=2, floor_ratio=0.1)
    assert planned.schedule == schedule
    np.testing.assert_array_equal(planned.curve, schedule.curve(peak=1e-3))
    assert (planned.first_lr, planned.peak_lr, planned.last_lr) == (5e-4, 1e-3, 1e-4)
    planned = plan(sft(lr_scheduler_type="linear", **run))
    assert (planned.first_lr, planned.peak_lr, planned.last_lr) == (0.0, 1e-3, pytest.approx(1.25e-4))
    assert planned.notes == ("The first step trains at a learning rate of 0.",)
    planned = plan(sft(lr_scheduler_type="greedy", max_steps=10))
    assert (planned.curve, planned.last_lr) == (None, None)
    assert planned.notes == ("The learning rate depends on metrics; only its start is known.",)


@pytest.mark.parametrize(
    ("config", "note"),
    [
        (sft(dataloader_drop_last=True), "Each epoch drops 5 of the 37 samples."),
        (sft(lerning_rate=1), "`lerning_rate` is not an argument and is ignored here; did you mean 'learning_rate'?"),
        (grpo(), "Each epoch drops 1 of the 37 prompts."),
    ],
)
def test_notes_name_consequences_that_are_easy_to_miss(config, note):
    assert any(note in found for found in plan(config, dataset_size=37, num_processes=2).notes)
    even = sft() if config.kind == "sft" else grpo()
    assert plan(even, dataset_size=40, num_processes=2).notes == ()


def test_a_cooldown_from_a_checkpoint_is_planned(model_path, tmp_path):
    run = {"max_steps": 6, "save_strategy": "steps", "save_steps": 6, "lr_scheduler_type": "constant"}
    trainer, _ = train(model_path, tmp_path, **run)
    checkpoint = str(tmp_path / "checkpoint-6")
    cooldown = {"anneal_from": checkpoint, "anneal_duration": 3, "anneal_shape": "linear"}
    planned = plan(sft(**cooldown, max_steps=99, save_steps=2, lr_scheduler_kwargs='{"floor_ratio": 0.5}'))
    assert planned.checkpoints == (8, 9)
    assert planned.num_training_steps == 9
    assert planned.curve[5] == planned.peak_lr == trainer.args.learning_rate
    assert planned.last_lr == planned.peak_lr / 2
    assert any(checkpoint in note for note in planned.notes)
    assert plan(sft(**cooldown, lr_scheduler_type="wsd:floor_ratio=0.5")).last_lr == planned.last_lr


@pytest.mark.parametrize("text", ["wsd:decay=30%,floor_ratio=0.1,on_resume=keep", "hold 70% | decay 1-sqrt; floor 0.1"])
def test_one_text_is_planned_like_a_name_with_arguments(text):
    planned = plan(sft(lr_scheduler_type=text, max_steps=100))
    assert str(planned.schedule) == "hold 70 | decay 30 1-sqrt; floor 0.1"
    with pytest.raises(hf_sched.ArgumentError, match="is given twice"):
        plan(sft(lr_scheduler_type=text, lr_scheduler_kwargs={"decay": "20%", "phases": "hold"}, max_steps=100))
