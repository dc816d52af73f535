"""What a plan is made of: world size, dataset size, generations, schedules, notes; and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import hf_sched
from hf_sched.plan import plan
from hf_sched.plan.dataset_size import find_dataset_size
from hf_sched.plan.training_config import TrainingConfig
from hf_sched.plan.world_size import find_world_size

SFT = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "max_length": 64}
GRPO = {"per_device_train_batch_size": 4, "learning_rate": 1e-3, "num_generations": 4}


def sft(**given: Any) -> TrainingConfig:
    return TrainingConfig("sft", {**SFT, **given})


def grpo(**given: Any) -> TrainingConfig:
    return TrainingConfig("grpo", {**GRPO, **given})


def with_comment(tmp_path: Path, *comment: str) -> TrainingConfig:
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"# {line}\n" for line in comment) + "max_steps: 3\n")
    return TrainingConfig.read(path, "sft")


@pytest.mark.parametrize(
    ("launch", "processes", "source"),
    [
        ("accelerate launch --config_file four.yaml recipes/sft.py", 4, "four.yaml of the launch"),
        ("accelerate launch --config_file=four.yaml --num_processes 6 x.py", 6, "`num_processes` of the launch"),
        ("accelerate launch --num-processes 3 recipes/sft.py --config a", 3, "`num_processes` of the launch"),
        ("accelerate launch --config_file none.yaml recipes/sft.py", 1, "names none.yaml, which is not there"),
        # `accelerate launch` starts one process for it, whatever the number.
        ("accelerate launch --config_file alone.yaml recipes/sft.py", 1, "alone.yaml of the launch, which starts one"),
        ("accelerate launch --config_file alone.yaml --num_processes 4 recipes/sft.py", 1, "which starts one"),
        ("accelerate launch --config_file alone.yaml --multi_gpu --num_processes 4 recipes/sft.py", 4, "num_processes"),
        ("trl sft --config this.yaml --accelerate_config four.yaml", 4, "four.yaml of the launch"),
        ("trl sft --config this.yaml --accelerate_config zero2", 8, "zero2 of the launch"),
        ("torchrun --nproc_per_node 8 --nnodes=2 recipes/sft.py", 16, "torchrun"),
        ("torchrun --nproc-per-node gpu recipes/sft.py", 1, "assumed"),
        ("python recipes/sft.py: that's all", 1, "assumed"),
    ],
)
def test_the_launch_line_says_the_number_of_processes(tmp_path, launch, processes, source):
    (tmp_path / "four.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 4\n")
    (tmp_path / "alone.yaml").write_text("distributed_type: 'NO'\nnum_processes: 4\n")
    config = with_comment(tmp_path, launch, "A recipe that isn't long.")
    found = find_world_size(config)
    assert found.processes == processes
    assert source in found.source
    assert plan(config).effective_batch == processes * 8
    assert plan(config, world_size=5).world_size.processes == 5


def test_the_command_trl_takes_the_launch_from_the_file_itself(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("# trl sft --config config.yaml\nmax_steps: 3\naccelerate_config: zero2\n")
    assert find_world_size(TrainingConfig.read(path)).processes == 8
    path.write_text(path.read_text() + "num_processes: 3\n")
    planned = plan(TrainingConfig.read(path))
    assert planned.world_size.processes == 3
    assert not any("No argument is called" in note for note in planned.notes)


def test_a_launch_that_goes_on_in_the_next_line(tmp_path):
    config = with_comment(tmp_path, "accelerate launch \\", "    --num_processes 3 recipes/sft.py")
    assert find_world_size(config).processes == 3


def test_processes_that_share_a_batch_are_refused(tmp_path):
    (tmp_path / "cp.yaml").write_text(
        "distributed_type: FSDP\nnum_processes: 4\nparallelism_config: {parallelism_config_cp_size: 2}\n"
    )
    config = with_comment(tmp_path, "accelerate launch --config_file cp.yaml recipes/sft.py")
    with pytest.raises(ValueError, match=r"cp.yaml lets several processes share a batch .*cp_size.*`--world-size`"):
        plan(config)
    assert plan(config, world_size=2).world_size.processes == 2


ROWS = [{"prompt": f"{i}", "completion": "x"} for i in range(7)]


def write(folder: Path, form: str) -> Path:
    from datasets import Dataset

    path = folder / f"rows.{form}"
    rows = Dataset.from_list(ROWS)
    {"csv": rows.to_csv, "parquet": rows.to_parquet}.get(form, rows.to_json)(str(path))
    if form == "json":
        path.write_text(json.dumps(ROWS))
    return path


@pytest.mark.parametrize("form", ["jsonl", "json", "csv", "parquet"])
def test_a_file_is_counted(tmp_path, form):
    path = write(tmp_path, form)
    found = find_dataset_size(sft(dataset_name=str(path)))
    assert (found.samples, found.source) == (7, f"counted in {path}")


def test_a_folder_is_counted_by_its_splits(tmp_path):
    write(tmp_path, "jsonl").rename(tmp_path / "train.jsonl")
    (tmp_path / "test.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert find_dataset_size(sft(dataset_name=str(tmp_path))).samples == 7
    assert find_dataset_size(sft(dataset_name=str(tmp_path), dataset_train_split="test")).samples == 1
    with pytest.raises(
        ValueError, match=r"`dataset_train_split` must be one of train, test .*received 'tests'; did you"
    ):
        find_dataset_size(sft(dataset_name=str(tmp_path), dataset_train_split="tests"))
    assert find_dataset_size(sft(dataset_name=str(tmp_path)), 3).samples == 3


def test_a_dataset_of_the_hub_is_counted_in_the_cache(tmp_path, monkeypatch):
    import datasets

    # What `datasets` writes for a file is what it writes for a data set of the hub, but for the name of the folder.
    made = datasets.load_dataset_builder(
        "json", data_files=str(write(tmp_path, "jsonl")), cache_dir=str(tmp_path / "a")
    )
    made.download_and_prepare()
    cached = tmp_path / "cache" / "someone___some_rows" / "default" / "0.0.0" / "abc"
    shutil.copytree(made.cache_dir, cached)
    info = json.loads((cached / "dataset_info.json").read_text())
    (cached / "dataset_info.json").write_text(
        json.dumps({**info, "config_name": "default", "dataset_name": "some_rows"})
    )
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert find_dataset_size(sft(dataset_name="someone/some_rows")).samples == 7
    other = find_dataset_size(sft(dataset_name="someone/other_rows"))
    assert (other.samples, other.source) == (None, "'someone/other_rows' is not in the cache of `datasets`")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sft(), r"no `dataset_name` says which it is\. Give `--dataset-size N` or write `max_steps`"),
        (sft(dataset_name="runs/no/such"), r"'runs/no/such' is not there\. Give `--dataset-size N`"),
        (sft(dataset_name="a/b"), "'a/b' is not in the cache of `datasets`"),
        (sft(datasets=[{"path": "a/b"}]), "it is a mixture, `datasets`"),
        (sft(packing=True, dataset_name="a/b"), r"`packing` joins samples.*`--dataset-size N`, N packed sequences,"),
        (sft(dataset_streaming=True, dataset_name="a/b"), r"the dataset is streamed\. Write `max_steps`"),
        (TrainingConfig("trainer", {"dataset_name": "a/b"}), "the script prepares it"),
    ],
)
def test_without_samples_the_length_must_be_given(config, message):
    with pytest.raises(ValueError, match=f"the number of optimizer steps cannot be known.*{message}") as failed:
        plan(config)
    planned = plan(TrainingConfig(config.kind, {**config.given, "max_steps": 5}))
    assert (planned.num_training_steps, planned.epochs, planned.steps_per_epoch) == (5, None, None)
    assert planned.dataset_size.samples is None
    assert planned.dataset_size.source in str(failed.value)


def test_a_size_given_for_packing_is_that_of_packed_sequences():
    planned = plan(sft(packing=True), dataset_size=40)
    assert (planned.steps_per_epoch, planned.num_training_steps) == (10, 30)
    assert "40 samples are taken to be packed sequences (`packing`)." in planned.notes


def test_a_size_given_for_a_stream_changes_nothing():
    with pytest.raises(ValueError, match="the dataset is streamed"):
        plan(sft(dataset_streaming=True), dataset_size=40)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sft(max_steps=0), r"`max_steps` must be 1 or more, or -1 .* received 0"),
        (sft(max_steps=1.5), r"`max_steps` must be a whole number, -1 or more, received 1.5"),
        (sft(num_train_epochs=0), r"`num_train_epochs` must be a finite number above 0, received 0"),
        (sft(warmup_ratio=0.1), r"`warmup_ratio` is gone .* received 0.1: write `warmup_steps: 0.1`"),
        (sft(learning_rate="fast"), "`learning_rate` must be a finite number, 0 or more, received 'fast'"),
        (sft(save_strategy=False), r'`save_strategy` must be text, received False.*write "no" in quotes'),
        (sft(eval_strategy="step"), r"`eval_strategy` must be one of no, steps, epoch, received 'step'; did you mean"),
        (sft(lr_scheduler_type="cosin_floor"), r"`lr_scheduler_type`: 'cosin_floor' is not .* 'cosine_floor'\?"),
        (sft(lr_scheduler_kwargs="floor"), "`lr_scheduler_kwargs` must be a mapping, or one in JSON, received 'floor'"),
        (sft(lr_scheduler_type="cosine_floor", warmup_steps=99), "`num_warmup_steps` must be less than .*received 99"),
        (
            sft(accelerator_config={"split_batches": True}, per_device_train_batch_size=7),
            r"`per_device_train_batch_size` is split over the 2 processes.*received 7: write 8",
        ),
        (sft(dataloader_drop_last=True, per_device_train_batch_size=21), r"at least the 42 samples .* received 40"),
        (sft(accelerator_config="no.json"), "`accelerator_config` must be a mapping, .* received 'no.json'"),
        (grpo(num_generations=1), "`num_generations` must be a whole number, 2 or more, received 1"),
        (grpo(num_generations=5), r"`num_generations` must divide the 8 completions .* received 5: write 4"),
        (grpo(generation_batch_size=20), "`generation_batch_size` must be a multiple of 8 .* received 20: write 16"),
        (grpo(generation_batch_size=16, steps_per_generation=2), "give either `generation_batch_size` or"),
        (grpo(steps_per_generation=32), "the dataset must have at least the 64 prompts of a generation, received 40"),
        (
            grpo(eval_strategy="epoch", per_device_eval_batch_size=3),
            "`per_device_eval_batch_size` x processes must be a multiple of the 4 completions .* received 3 x 2",
        ),
        (grpo(accelerator_config={"split_batches": True}), "`accelerator_config.split_batches` must be false for GRPO"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_write_instead(config, message):
    with pytest.raises(ValueError, match=message):
        plan(config, dataset_size=40, world_size=2)


def test_epochs_in_a_schedule_need_the_size():
    config = sft(max_steps=9, lr_scheduler_type="wsd", lr_scheduler_kwargs={"decay": "1ep"})
    with pytest.raises(ValueError, match=r"`decay` is in epochs \(1ep\), and nobody knows.*`--dataset-size N`"):
        plan(config)
    assert [phase.steps for phase in plan(config, dataset_size=16).phases] == [5, 4]


def test_the_curve_and_its_phases():
    given = {"max_steps": 10, "warmup_steps": 0.2, "lr_scheduler_kwargs": '{"floor_ratio": 0.1}'}
    planned = plan(sft(lr_scheduler_type="cosine_floor", **given))
    schedule = hf_sched.build("cosine_floor", num_training_steps=10, num_warmup_steps=2, floor_ratio=0.1)
    assert planned.schedule == schedule
    np.testing.assert_array_equal(planned.curve, schedule.curve(peak=1e-3))
    assert [(phase.name, phase.first_step, phase.steps) for phase in planned.phases] == [
        ("warmup, linear", 0, 2),
        ("decay, cosine", 2, 8),
    ]
    assert (planned.phases[0].first_lr, planned.phases[0].last_lr, planned.phases[1].last_lr) == (5e-4, 1e-3, 1e-4)


def test_schedules_of_transformers_are_planned_with_their_faults():
    planned = plan(sft(lr_scheduler_type="linear", max_steps=10, warmup_steps=2))
    assert planned.schedule is None
    assert (planned.first_lr, planned.peak_lr, planned.last_lr) == (0.0, 1e-3, pytest.approx(1.25e-4))
    assert "The first step trains at a learning rate of 0." in planned.notes
    assert [(phase.name, phase.steps) for phase in planned.phases] == [("warmup, linear", 2), ("linear", 8)]


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_by_metrics_has_no_curve(name):
    planned = plan(sft(lr_scheduler_type=name, max_steps=10))
    assert (planned.curve, planned.last_lr, planned.phases) == (None, None, ())
    assert "The learning rate depends on metrics: only where it starts is known." in planned.notes
    json.dumps(planned.as_dict())


def test_checkpoints_and_evaluations_at_epochs_that_nobody_knows():
    planned = plan(sft(max_steps=10, save_strategy="epoch", eval_strategy="epoch"))
    assert (planned.checkpoints, planned.checkpoints_kept, planned.evaluations) == (None, None, None)
    planned = plan(sft(max_steps=10, save_strategy="epoch", eval_strategy="epoch"), dataset_size=16)
    assert planned.checkpoints == planned.evaluations == (4, 8, 10)


@pytest.mark.parametrize(
    ("config", "note"),
    [
        (sft(gradient_accumulation_steps=3), "The last optimizer step of an epoch has 2 of 3 batches."),
        (sft(), "The last batches of an epoch have 5 of 8 samples; they are filled up from its start."),
        (sft(dataloader_drop_last=True), "Each epoch leaves out 5 of the 37 samples (`dataloader_drop_last`)."),
        (sft(), "TRL drops samples of which nothing is left to learn within `max_length` 64; the 37 here are those"),
        (sft(max_steps=3, num_train_epochs=2), "`max_steps` wins over `num_train_epochs`."),
        (sft(auto_find_batch_size=True), "`auto_find_batch_size` halves the batch"),
        (sft(train_sampling_strategy="group_by_length"), "Samples of like length are batched together"),
        (sft(accelerator_config={"even_batches": False}), "With `even_batches: false`"),
        (sft(resume_from_checkpoint="auto"), "It resumes from a checkpoint"),
        (
            sft(lerning_rate=1),
            "No argument is called `lerning_rate`, so it is left out here; did you mean 'learning_rate'?",
        ),
        (
            sft(save_strategy="best", eval_strategy="epoch"),
            "A checkpoint is written whenever an evaluation is the best",
        ),
        (grpo(), "Each epoch leaves out 1 of the 37 prompts: a generation takes 2."),
    ],
)
def test_what_a_reader_might_not_expect_is_said(config, note):
    assert any(note in said for said in plan(config, dataset_size=37, world_size=2).notes)
    quiet = {**config.given, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 1, "max_length": None}
    quiet = {key: value for key, value in quiet.items() if key in {**SFT, **GRPO, "gradient_accumulation_steps": 1}}
    even = plan(TrainingConfig(config.kind, quiet), dataset_size=40, world_size=4 if config.kind == "grpo" else 2)
    assert not any(note in said for said in even.notes)


def test_how_generations_set_the_horizon():
    def steps(**given: Any) -> int:
        return plan(grpo(num_train_epochs=1, **given), dataset_size=64, world_size=2).num_training_steps

    assert steps() == 32
    assert steps(num_generations=8) == 64
    assert steps(num_iterations=3) == 96
    assert steps(gradient_accumulation_steps=4) == 8
    assert steps(gradient_accumulation_steps=4, steps_per_generation=1) == 8
    assert steps(steps_per_generation=4) == 32
    counted = plan(grpo(gradient_accumulation_steps=4, num_iterations=2, num_train_epochs=1), dataset_size=64).grpo
    assert (counted.prompts_per_generation, counted.generation_batch_size) == (4, 16)
    assert (counted.prompts_per_step, counted.completions_per_step) == (4, 16)
    assert (counted.optimizer_steps_per_generation, counted.generations) == (2, 16)
    assert (counted.prompts, counted.completions, counted.prompts_left_out) == (64, 256, 0)


def test_a_cooldown_that_branches_off_is_planned_as_the_recipes_run_it(model_path, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    rows = torch.randint(6, 16, (8, 12))
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", max_steps=6, save_steps=6, lr_scheduler_type="constant"
    )
    model = AutoModelForCausalLM.from_pretrained(model_path)
    Trainer(model, args, train_dataset=[{"input_ids": row, "labels": row} for row in rows]).train()
    checkpoint = str(tmp_path / "checkpoint-6")
    given = {
        "anneal_from": checkpoint,
        "anneal_duration": 3,
        "anneal_shape": "linear",
        "max_steps": 99,
        "save_steps": 2,
    }
    planned = plan(sft(**given, lr_scheduler_kwargs='{"floor_ratio": 0.5}'))
    assert planned.checkpoints == (8, 9)
    assert planned.num_training_steps == 9
    assert planned.peak_lr == args.learning_rate
    assert planned.curve[5] == planned.peak_lr
    assert planned.last_lr == planned.peak_lr / 2
    assert any(checkpoint in note for note in planned.notes)


def test_a_plan_as_plain_values():
    config = grpo(max_steps=5, lr_scheduler_type="cosine_floor")
    plain = json.loads(json.dumps(plan(config).as_dict()))
    assert plain["num_training_steps"] == len(plain["curve"]) == 5
    assert plain["world_size"]["processes"] == 1
    assert plain["grpo"]["completions_per_step"] == 4
    assert hf_sched.Schedule.parse(plain["schedule"]).num_training_steps == 5
    yaml.safe_dump(plain)
