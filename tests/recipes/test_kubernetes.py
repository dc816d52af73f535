"""recipes/kubernetes fits the schema of Kubeflow Trainer, and its pods train as processes on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import TrainerV1alpha1TrainingRuntime

import hf_sched
from tests.helpers.recipes import COMMON, ROOT, SFT, Finished, free_port

RUNTIME, JOB = (yaml.safe_load((ROOT / f"recipes/kubernetes/{name}.yaml").read_text()) for name in ("runtime", "train"))
(NODE,) = RUNTIME["spec"]["template"]["spec"]["replicatedJobs"]
POD = NODE["template"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
TRAINER = JOB["spec"]["trainer"]


@pytest.mark.parametrize(
    ("document", "model"), [(RUNTIME, TrainerV1alpha1TrainingRuntime), (JOB, TrainerV1alpha1TrainJob)]
)
def test_file_fits_the_published_schema(document, model):
    assert document["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    # The model checks types and required keys, and drops unknown keys.
    assert model.from_dict(document).to_dict() == document


def test_files_fit_each_other():
    reference = JOB["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (RUNTIME["kind"], RUNTIME["metadata"]["name"])
    # Trainer finds the container whose environment and arguments it sets by these names.
    assert NODE["name"] == CONTAINER["name"] == "node"
    assert NODE["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert TRAINER["numProcPerNode"] == TRAINER["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    mounts = CONTAINER["volumeMounts"]
    assert {mount["name"] for mount in mounts} == {volume["name"] for volume in POD["volumes"]}
    assert any(word.startswith(f"{mounts[0]['mountPath']}/") for word in TRAINER["args"])


def run_pods(folder: Path, accelerate: str, nodes: int, processes: int, args: list[str]) -> list[str]:
    """Run pods as processes with the variables that the controller sets; `accelerate` is what Python runs for it."""
    for name in ("recipes", "accelerate_configs"):
        (folder / name).symlink_to(ROOT / name)
    command = folder / "bin" / "accelerate"
    command.parent.mkdir()
    command.write_text(f'#!/bin/bash\nexec {sys.executable} {accelerate} "$@"\n')
    command.chmod(0o755)
    given = {"PET_NNODES": nodes, "PET_NPROC_PER_NODE": processes, "PET_MASTER_PORT": free_port()}
    fixed = {"PET_MASTER_ADDR": "127.0.0.1", "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    pods = []
    for rank in range(nodes):
        own = {name: str(value) for name, value in {**given, "PET_NODE_RANK": rank}.items()}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        words = [*CONTAINER["command"], *args]
        pods.append(subprocess.Popen(words, cwd=folder, env={**os.environ, **fixed, **own}, **pipes))
    printed = [pod.communicate(timeout=500)[0] for pod in pods]
    assert not any(pod.returncode for pod in pods), printed
    return printed


def test_each_pod_launches_with_its_rank_and_address(tmp_path):
    show = "-c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
    for rank, printed in enumerate(run_pods(tmp_path, show, TRAINER["numNodes"], 8, TRAINER["args"])):
        words = json.loads(printed)
        assert words[:7] == ["launch", "--num_machines", "2", "--machine_rank", str(rank), "--num_processes", "16"]
        assert words[7:10] == ["--main_process_ip", "127.0.0.1", "--main_process_port"]
        assert words[11:] == TRAINER["args"]


@pytest.mark.slow
def test_two_pods_train_on_the_planned_rates(tmp_path, task):
    schedule = {"lr_scheduler_type": "cosine_floor", "warmup_steps": 2, "max_steps": 12}
    where = {"model_name_or_path": str(task / "model"), "dataset_name": str(task / "sft"), "output_dir": "run"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**COMMON, **SFT, **schedule, **where}))
    args = ["--config_file", "accelerate_configs/cpu_2proc.yaml", "recipes/sft.py", "--config", "run.yaml"]
    run_pods(tmp_path, "-m accelerate.commands.accelerate_cli", 2, 1, args)
    run = Finished(tmp_path / "run", 0, "")
    assert run.args.world_size == 2
    planned = hf_sched.build("cosine_floor", num_training_steps=12, num_warmup_steps=2)
    np.testing.assert_allclose(run.logged("learning_rate"), planned.curve(peak=SFT["learning_rate"]), rtol=1e-12)
