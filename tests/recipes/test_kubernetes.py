"""recipes/kubernetes fits the schema of Kubeflow Trainer, and its pods train as processes on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import TrainerV1alpha1TrainingRuntime

import hf_sched
from tests.helpers.recipes import COMMON, ROOT, SFT, Finished, free_port

FOLDER = ROOT / "recipes" / "kubernetes"
MODELS = {"TrainJob": TrainerV1alpha1TrainJob, "TrainingRuntime": TrainerV1alpha1TrainingRuntime}


def read(name: str) -> dict[str, Any]:
    (document,) = yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())
    return document


def node(runtime: dict[str, Any]) -> dict[str, Any]:
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    return job


def container(runtime: dict[str, Any]) -> dict[str, Any]:
    (found,) = node(runtime)["template"]["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.parametrize("name", ["runtime", "train"])
def test_file_fits_the_published_schema(name):
    document = read(name)
    assert document["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    # The model checks types and required keys, and drops unknown keys.
    assert MODELS[document["kind"]].from_dict(document).to_dict() == document


def test_files_fit_each_other():
    runtime, job = read("runtime"), read("train")
    reference = job["spec"]["runtimeRef"]
    assert (reference["kind"], reference["name"]) == (runtime["kind"], runtime["metadata"]["name"])
    # Trainer finds the container whose environment and arguments it sets by these names.
    assert node(runtime)["name"] == container(runtime)["name"] == "node"
    labels = node(runtime)["template"]["metadata"]["labels"]
    assert labels == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    trainer = job["spec"]["trainer"]
    assert trainer["numProcPerNode"] == trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"]
    mounted = {mount["name"] for mount in container(runtime)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in node(runtime)["template"]["spec"]["template"]["spec"]["volumes"]}
    output = trainer["args"][trainer["args"].index("--output_dir") + 1]
    assert any(output.startswith(f"{mount['mountPath']}/") for mount in container(runtime)["volumeMounts"])


class Pods:
    """The pods of a TrainJob, as processes with the environment that controller and kubelet provide."""

    def __init__(self, folder: Path, nodes: int, processes: int, args: list[str]) -> None:
        self.folder, self.nodes, self.processes = folder, nodes, processes
        self.words = [*container(read("runtime"))["command"], *args]
        for name in ("recipes", "accelerate_configs"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "bin").mkdir()
        self.command("accelerate", f'exec {sys.executable} -m accelerate.commands.accelerate_cli "$@"')

    def command(self, name: str, line: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{line}\n")
        path.chmod(0o755)

    def run(self) -> list[tuple[int, str, str]]:
        """Run all; return exit status, output and errors of each."""
        network = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
        size = {"PET_NNODES": str(self.nodes), "PET_NPROC_PER_NODE": str(self.processes)}
        paths = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        }
        pods = []
        for rank in range(self.nodes):
            given = {**network, **size, "PET_NODE_RANK": str(rank)}
            words = [expanded(word, given) for word in self.words]
            environment = {**os.environ, **paths, **given}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            pods.append(subprocess.Popen(words, cwd=self.folder, env=environment, **pipes))
        return [(pod.returncode, *printed) for pod in pods if (printed := pod.communicate(timeout=500))]


def expanded(word: str, known: dict[str, str]) -> str:
    """Replace `$(NAME)` as the kubelet does, if it knows the name."""
    return re.sub(r"\$\(([^)]*)\)", lambda found: known.get(found[1], found[0]), word)


def test_each_pod_launches_with_its_rank_and_address(tmp_path):
    trainer = read("train")["spec"]["trainer"]
    pods = Pods(tmp_path, trainer["numNodes"], trainer["numProcPerNode"], trainer["args"])
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    pods.command("accelerate", f"exec {sys.executable} -c '{show}' \"$@\"")
    for rank, (status, printed, errors) in enumerate(pods.run()):
        assert (status, errors) == (0, "")
        words = json.loads(printed)
        assert words[:7] == ["launch", "--num_machines", "2", "--machine_rank", str(rank), "--num_processes", "16"]
        assert words[7:10:2] == ["--main_process_ip", "--main_process_port"]
        assert words[8] == "127.0.0.1"
        assert words[11:] == trainer["args"]


@pytest.mark.slow
def test_two_pods_train_on_the_planned_rates(tmp_path, task):
    schedule = {"lr_scheduler_type": "cosine_floor", "warmup_steps": 2, "max_steps": 12}
    where = {"model_name_or_path": str(task / "model"), "dataset_name": str(task / "sft"), "output_dir": "run"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**COMMON, **SFT, **schedule, **where}))
    args = ["--config_file", "accelerate_configs/cpu_2proc.yaml", "recipes/sft.py", "--config", "run.yaml"]
    ended = Pods(tmp_path, 2, 1, args).run()
    assert [status for status, *_ in ended] == [0, 0], ended
    run = Finished(tmp_path / "run", 0, "")
    assert run.args.world_size == 2
    planned = hf_sched.build("cosine_floor", num_training_steps=12, num_warmup_steps=2)
    np.testing.assert_allclose(run.logged("learning_rate"), planned.curve(peak=SFT["learning_rate"]), rtol=1e-12)
