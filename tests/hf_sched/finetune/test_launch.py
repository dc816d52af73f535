"""A launch that silently became another one is rejected."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import accelerate
import pytest
import yaml
from packaging.version import Version
from transformers import TrainingArguments

from hf_sched.cli.finetune import launch_command
from hf_sched.finetune.launch import check_launch
from tests.helpers.recipes import ONE_PROCESS, ROOT, TWO_PROCESSES, finish

COMMAND = ["-m", "hf_sched", "sft"]
SHORT = {"max_steps": 2, "lr_scheduler_type": "cosine_floor"}


@pytest.mark.skipif(
    Version(accelerate.__version__) < Version("1.13"), reason="before 1.13 Accelerate joins the two processes"
)
def test_two_separate_trainings_of_one_process_are_rejected(run_recipe):
    rejected = run_recipe("sft", TWO_PROCESSES, ok=False, use_cpu=None, **SHORT)
    assert "2 processes were requested, but this training has 1 process" in rejected.output
    assert "write `use_cpu: true` in the YAML" in rejected.output


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP was requested"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_CPU": "true"}, "DeepSpeed was requested, but would not"),
        ({"HF_SCHED_NUM_PROCESSES": "2"}, r"2 processes were requested.*single process for `distributed_type: NO`"),
    ],
)
def test_environment_of_a_launcher_is_compared_with_the_process_group(run_recipe, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert re.search(message, run_recipe("sft", ok=False, **SHORT).output)


@pytest.fixture
def config(task: Path, tmp_path: Path) -> list[str]:
    given = {"model_name_or_path": str(task / "model"), "dataset_name": str(task / "sft"), "bf16": False, **SHORT}
    given |= {"output_dir": str(tmp_path / "run"), "report_to": "none"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given))
    return ["--config", str(tmp_path / "c.yaml")]


@pytest.mark.parametrize(
    ("words", "processes"), [([], 1), pytest.param(["--num-processes", "2"], 2, marks=pytest.mark.slow)]
)
def test_command_trains_on_one_cpu_process_or_more_with_its_flags(config, tmp_path, words, processes):
    done = finish(ONE_PROCESS, [*COMMAND, *config, *words, "--max_steps", "3"], tmp_path / "run")
    assert (done.args.world_size, done.args.max_steps) == (processes, 3)


@pytest.mark.slow
def test_command_passes_on_the_exit_status_and_rejects_a_config_that_starts_one_process(config, tmp_path):
    launch = yaml.safe_load((ROOT / TWO_PROCESSES[0]).read_text()) | {"distributed_type": "MULTI_CPU", "use_cpu": True}
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump(launch))
    words = [*COMMAND, *config, "--accelerate-config", str(tmp_path / "launch.yaml")]
    rejected = finish(ONE_PROCESS, words, tmp_path / "run", ok=False)
    assert "2 processes were requested, but this training has 1 process" in rejected.output
    assert "`distributed_type: MULTI_GPU`" in rejected.output


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_mistake_is_reported_once_for_all_processes_with_its_exit_status(config, tmp_path, processes):
    words = [*COMMAND, *config, "--num-processes", processes, "--learning_rat", "1"]
    rejected = finish(ONE_PROCESS, words, tmp_path / "run", ok=False)
    assert rejected.returncode == 2
    assert rejected.output.count("sft: error: `learning_rat` is not an argument of") == 1
    assert len(rejected.output.splitlines()) == 2  # the other says how many processes are started


def test_command_launches_the_installed_module():
    launch = [sys.executable, "-m", "hf_sched.finetune.accelerate_launch"]
    gpu = launch_command("dpo", ["--config", "c"], 4, "ddp.yaml", has_gpu=True)
    module = ["-m", "hf_sched.finetune.dpo", "--config", "c"]
    assert gpu == [*launch, "--config_file", "ddp.yaml", "--num_processes", "4", *module]
    cpu = launch_command("sft", ["--config", "c"], 2, None, has_gpu=False)
    assert "--multi_gpu" in cpu and cpu[-2:] == ["--use_cpu", "true"]
    assert launch_command("sft", ["--use_cpu=false"], None, None, has_gpu=False)[-1] == "--use_cpu=false"


def test_one_process_that_sees_several_gpus_is_rejected(tmp_path, monkeypatch):
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match=r"one process sees 2 GPUs and would use nn\.DataParallel"):
        check_launch(args)
