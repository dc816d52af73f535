"""recipes/slurm/train.slurm runs under a stub of Slurm whose nodes are processes of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

import hf_sched
from hf_sched.finetune.provenance import read_provenance
from tests.helpers.recipes import COMMON, ROOT, SFT, Finished
from tests.helpers.slurm_job import NODES, SCRIPT, Job

DDP = ["accelerate_configs/ddp.yaml", "recipes/sft.py"]


def wait_for(condition: Callable[[], Any], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    yield Job(tmp_path)
    left = [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(tmp_path)]
    for each in left:
        each.kill()
    assert not left


@pytest.fixture
def stand_ins(job: Job) -> Job:
    return job.stand_in()


@pytest.mark.parametrize("script", [SCRIPT, ROOT / "recipes" / "launch.sh"], ids=lambda path: path.name)
def test_shell_scripts_pass_shellcheck(script):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("needs shellcheck: pip install -e '.[test]'")
    checked = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    assert os.access(script, os.X_OK) or script == SCRIPT


def test_each_node_launches_with_its_rank_and_unchanged_arguments(stand_ins):
    odd = ["--lr_scheduler_kwargs", '{"floor_ratio": 0.1}', "--run_name", "two words, a $HOME and 'quotes'"]
    status, output = stand_ins.run(2, *DDP, "--config", "my.yaml", *odd, gpus=8, STATUS="[0, 0]")
    assert (status, output) == (0, "")
    seen = stand_ins.launched()
    assert [each["node"] for each in seen] == NODES[:2]
    port = str(10000 + stand_ins.number % 10000)
    for rank, each in enumerate(seen):
        assert each["words"] == [
            *["launch", "--machine_rank", str(rank), "--config_file", DDP[0]],
            *["--num_machines", "2", "--num_processes", "16"],
            *["--main_process_ip", NODES[0], "--main_process_port", port, DDP[1]],
            *["--enable_jit_checkpoint", "true", "--resume_from_checkpoint", "auto", "--config", "my.yaml", *odd],
        ]
        assert each["cpus"] == "4"
    assert not stand_ins.requeued.exists()


def test_wrong_arguments_are_named_in_one_line(stand_ins):
    status, output = stand_ins.run(1, "--vllm", "model", *DDP)
    message = "`--vllm` needs its own node: sbatch --nodes 2, or more"
    assert (status, output) == (2, f"train.slurm: error: {message}\n")


VLLM = ["--vllm", "some/model --tensor_parallel_size 4", *DDP]


def test_vllm_gets_the_last_node_and_training_waits_until_it_is_healthy(stand_ins):
    status, output = stand_ins.run(3, *VLLM, "--config", "my.yaml", gpus=8, STATUS="[0, 0]", SERVER="works")
    assert status == 0, output
    port = str(20000 + stand_ins.number % 10000)
    served = (stand_ins.folder / "server.words").read_text().splitlines()
    assert served == ["vllm-serve", "--model", "some/model", "--tensor_parallel_size", "4", "--port", port]
    server = ["--use_vllm", "true", "--vllm_mode", "server", "--vllm_server_host", NODES[2]]
    seen = stand_ins.launched()
    assert [each["node"] for each in seen] == NODES[:2]
    for each in seen:
        words = each["words"]
        assert each["healthy"] and words[words.index("--num_processes") + 1] == "16"
        assert words[words.index("--use_vllm") :] == [*server, "--vllm_server_port", port, "--config", "my.yaml"]
    assert (stand_ins.folder / "server.ended").exists()


def test_failing_server_ends_the_job(stand_ins):
    status, output = stand_ins.run(2, *VLLM, STATUS="[0]", SERVER="fails")
    assert status == 2 and not stand_ins.launched()
    assert f"the vLLM server has ended: see logs/{stand_ins.number}/vllm-{NODES[1]}.log" in output
    assert "no GPU" in output


def test_training_ended_by_slurm_keeps_its_server_until_it_has_finished(stand_ins):
    script = stand_ins.start(2, *VLLM, STATUS="[null]", SERVER="works")
    wait_for(stand_ins.launched)
    steps = [each for each in psutil.Process(script.pid).children() if "srun" in " ".join(each.cmdline())]
    assert len(steps) == 2
    for each in (*steps, script):  # as scancel and preemption do
        each.send_signal(signal.SIGTERM)
    assert script.wait(300) == 143
    (seen,) = stand_ins.launched(terminated=True)
    assert seen["healthy"]
    assert (stand_ins.folder / "server.ended").exists()
    assert not stand_ins.requeued.exists()  # Slurm decides that itself


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_job_trains_as_planned_is_requeued_at_its_time_limit_and_resumes_exactly(job, task, nodes):
    steps = 40
    schedule = {"lr_scheduler_type": "cosine_floor", "warmup_steps": 2, "max_steps": steps}
    where = {"model_name_or_path": str(task / "model"), "dataset_name": str(task / "sft"), "output_dir": "run"}
    config = {**COMMON, **SFT, **schedule, **where, "per_device_train_batch_size": 4}
    (job.folder / "run.yaml").write_text(yaml.safe_dump(config))
    launch = "accelerate_configs/single_gpu.yaml" if nodes == 1 else "accelerate_configs/cpu_2proc.yaml"
    words = [launch, DDP[1], "--config", "run.yaml", "--lr_scheduler_kwargs", '{"floor_ratio": 0.1}']

    def finish_as(name: str) -> Finished:
        status, output = job.run(nodes, *words)
        assert status == 0, output[-6000:]
        return Finished((job.folder / "run").rename(job.folder / name), status, output)

    script = job.start(nodes, *words)
    rates = job.folder / "run" / "learning_rates.jsonl"
    wait_for(lambda: rates.is_file() and rates.read_text().count('"rates"') > 5)
    script.send_signal(signal.SIGUSR1)
    script.communicate(timeout=500)
    assert script.returncode != 0
    assert job.requeued.read_text() == f"{job.number}\n"
    (checkpoint,) = (job.folder / "run").glob("checkpoint-*")
    step = int(checkpoint.name.split("-")[1])
    assert 5 < step < steps
    assert f"stopped by SIGTERM after step {step} of {steps}" in job.logs()
    assert not (job.folder / "run" / "model.safetensors").exists()

    resumed, whole = finish_as("resumed"), finish_as("whole")
    assert read_provenance(resumed.folder / "run.json")[-1]["step"] == step
    assert whole.args.world_size == nodes
    assert {path.name for path in job.folder.glob("logs/*/*")} == {f"train-{node}.log" for node in NODES[:nodes]}
    planned = hf_sched.build("cosine_floor", num_training_steps=steps, num_warmup_steps=2, floor_ratio=0.1)
    np.testing.assert_allclose(whole.logged("learning_rate"), planned.curve(peak=SFT["learning_rate"]), rtol=1e-12)
    for key in ("learning_rate", "loss"):
        np.testing.assert_array_equal(resumed.logged(key), whole.logged(key))
    ours, theirs = (each.folder / "model.safetensors" for each in (resumed, whole))
    assert ours.read_bytes() == theirs.read_bytes()
