"""Other training programs under `hf-sched run`: every logged learning rate equals the schedule's.

Programs that need their own packages (marker `hosts`, `make test-hosts`) get a virtual environment without hf_sched,
made from the requirements in this folder. It is kept in HF_SCHED_HOSTS if that is set, else in a temporary folder.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hf_sched

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = Path(sys.executable).parent
RUN = [sys.executable, "-m", "hf_sched", "run"]
STEPS, WARMUP, PEAK, FLOOR = 8, 2, 1e-3, 0.2
SCHEDULE = {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"floor_ratio": FLOOR}}
ARGUMENTS = {
    **{"max_steps": STEPS, "warmup_steps": WARMUP, "learning_rate": PEAK, **SCHEDULE, "use_cpu": True, "bf16": False},
    **{"logging_steps": 1, "save_strategy": "steps", "save_steps": STEPS, "report_to": "none"},
    "per_device_train_batch_size": 2,
}
OF_TRL = {
    "sft": {},
    "dpo": {},
    "grpo": {"num_generations": 2, "max_completion_length": 4, "reward_funcs": "think_format_reward"},
}


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    """The embedded task in the formats that the programs read."""
    from hf_sched.finetune.demo.sorting_task import save_data

    folder = tmp_path_factory.mktemp("task")
    (folder / "model").symlink_to(model_path)
    save_data(folder, train=64, test=4, backwards_share=0.0, seed=0)
    rows = [json.loads(line) for line in (folder / "sft" / "train.jsonl").read_text().splitlines()]
    texts = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows]
    with (folder / "text.jsonl").open("w") as out:
        for prompt, answer in texts:
            print(json.dumps({"text": prompt + answer}), file=out)
    (folder / "dataset_info.json").write_text(json.dumps({"sorting": {"file_name": "sorting.json"}}))
    instructions = [{"instruction": prompt, "input": "", "output": answer} for prompt, answer in texts]
    (folder / "sorting.json").write_text(json.dumps(instructions))
    return folder


def host(name: str, temporary: Path) -> Path:
    """The folder of programs in this host's virtual environment, which is installed if necessary."""
    folder = Path(os.environ.get("HF_SCHED_HOSTS", temporary)) / name
    finished = folder / "installed"
    if not finished.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for file, options in ((f"{name}.txt", []), (f"{name}.no-deps.txt", ["--no-deps"])):
            if not (HERE / file).exists():
                continue
            pip = [folder / "bin" / "python", "-m", "pip", "install", *options, "-r", HERE / file]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        # PyPI's build is for CUDA and does not load with torch for CPUs; its Python part suffices.
        for library in folder.glob("lib/*/site-packages/torchaudio/lib/*.so"):
            library.unlink()
        finished.touch()
    return folder / "bin"


# A process under gloo can abort at exit, after training and saving, if its process group is still alive
# (https://github.com/pytorch/pytorch/issues/190489), as in TRL.
ABORTED_AT_EXIT = "terminate called without an active exception"


def run(*words: object, programs: Path = PROGRAMS, launch: list[str] = RUN, ok: bool = True) -> str:
    """Run a command with `programs` first on PATH; its output."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PATH": f"{programs}{os.pathsep}{environment['PATH']}", "DS_ACCELERATOR": "cpu"}
    environment |= {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"}
    if programs == PROGRAMS:
        environment["PYTHONPATH"] = str(ROOT)  # elsewhere only `hf-sched run` provides hf_sched
    command = [*launch, *map(str, words)]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
        output = done.stdout + done.stderr
        if ABORTED_AT_EXIT not in output:
            break
    assert (done.returncode == 0) == ok, output[-6000:]
    return output


def flags(**given: object) -> list[str]:
    words = []
    for key, value in given.items():
        words += [f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def curve() -> list[float]:
    schedule = hf_sched.build("cosine_floor", num_training_steps=STEPS, num_warmup_steps=WARMUP, floor_ratio=FLOOR)
    return schedule.curve(peak=PEAK).tolist()


def logged(folder: Path) -> list[float]:
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [row["learning_rate"] for row in state["log_history"] if "learning_rate" in row]


def of_trl(method: str, task: Path, folder: Path) -> list[str]:
    where = {"model_name_or_path": task / "model", "dataset_name": task / method, "output_dir": folder}
    return flags(**where, **ARGUMENTS, **OF_TRL[method])


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_trl(task, tmp_path, method):
    run("trl", method, *of_trl(method, task, tmp_path))
    assert logged(tmp_path) == curve()


@pytest.mark.slow
def test_trl_on_two_processes(task, tmp_path):
    launch = ["--accelerate_config", "accelerate_configs/cpu_2proc.yaml", "--main_process_port", free_port()]
    output = run("trl", "sft", *of_trl("sft", task, tmp_path), *launch)
    assert logged(tmp_path) == curve()
    assert "'epoch': '0.5'" in output  # 8 steps of 2 processes with 2 of 64 rows each


@pytest.mark.slow
def test_trl_alone_rejects_the_name(task, tmp_path):
    output = run("trl", "sft", *of_trl("sft", task, tmp_path), launch=[], ok=False)
    assert "invalid choice: 'cosine_floor'" in output or "'cosine_floor' is not a valid" in output


TRAINER = """
import sys, torch
from transformers import AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments

(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(sys.argv[2:])
rows = [{"input_ids": torch.arange(6, 16), "labels": torch.arange(6, 16)}] * 64
Trainer(AutoModelForCausalLM.from_pretrained(sys.argv[1]), args, train_dataset=rows).train()
sys.stdout.write(f"processes {args.world_size}\\n")  # in one piece, since both processes write
"""


@pytest.mark.slow
@pytest.mark.parametrize("as_module", [False, True])
def test_trainer_script_under_torchrun(task, tmp_path, as_module):
    script = tmp_path / "train.py"
    script.write_text(TRAINER)
    torchrun = [PROGRAMS / "torchrun", "--nproc_per_node", 2, "--master_port", free_port()]
    launch, module = ([], ["-m", "hf_sched", "run"]) if as_module else (RUN, [])
    words = [script, task / "model", *flags(output_dir=tmp_path / "run", **ARGUMENTS)]
    output = run(*torchrun, *module, *words, launch=launch)
    assert logged(tmp_path / "run") == curve()
    assert output.count("processes 2") == 2


@pytest.mark.slow
def test_module_under_accelerate_launch(task, tmp_path):
    launcher = ["--config_file", "accelerate_configs/cpu_2proc.yaml", "--main_process_port", free_port()]
    module = ["-m", "hf_sched", "run", "-m", "trl.scripts.sft"]
    # Not the program `accelerate`: it imports timm if installed, which needs torchvision.
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    run(*launcher, *module, *of_trl("sft", task, tmp_path), launch=launch)
    assert logged(tmp_path) == curve()


# As transformers' examples `run_*_no_trainer.py`: the parser offers the names, Accelerate prepares the scheduler.
ACCELERATE = """
import argparse, json, torch
from accelerate import Accelerator
from transformers import SchedulerType, get_scheduler

parser = argparse.ArgumentParser()
parser.add_argument("--lr_scheduler_type", type=SchedulerType, choices=list(SchedulerType))
args = parser.parse_args()
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = get_scheduler(args.lr_scheduler_type, optimizer, num_warmup_steps=2, num_training_steps=8)
model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
used = []
for _ in range(8):
    accelerator.backward(model(torch.ones(1, 2)).sum())
    used.append(optimizer.param_groups[0]["lr"])
    optimizer.step()
    scheduler.step()
print(json.dumps(used))
"""


@pytest.mark.slow
def test_accelerate_script_without_trainer(tmp_path):
    (tmp_path / "loop.py").write_text(ACCELERATE)
    output = run(sys.executable, tmp_path / "loop.py", "--lr_scheduler_type", "cosine_floor")
    used = json.loads(next(line for line in output.splitlines() if line.startswith("[")))
    assert used == hf_sched.build("cosine_floor", num_training_steps=8, num_warmup_steps=2).curve(peak=1e-3).tolist()


SENTENCE_TRANSFORMERS = """
import sys
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses, models
)
from transformers import HfArgumentParser

(args,) = HfArgumentParser(SentenceTransformerTrainingArguments).parse_args_into_dataclasses(sys.argv[2:])
model = SentenceTransformer(modules=[models.Transformer(sys.argv[1]), models.Pooling(16)], device="cpu")
rows = [f"sort {number}" for number in range(64)]
data = Dataset.from_dict({"anchor": rows, "positive": rows})
loss = losses.MultipleNegativesRankingLoss(model)
SentenceTransformerTrainer(model=model, args=args, train_dataset=data, loss=loss).train()
"""


@pytest.mark.hosts
def test_sentence_transformers(task, tmp_path, tmp_path_factory):
    programs = host("sentence-transformers", tmp_path_factory.getbasetemp())
    (tmp_path / "train.py").write_text(SENTENCE_TRANSFORMERS)
    arguments = flags(output_dir=tmp_path / "run", **ARGUMENTS)
    run("python", tmp_path / "train.py", task / "model", *arguments, programs=programs)
    assert logged(tmp_path / "run") == curve()


@pytest.mark.hosts
@pytest.mark.parametrize("processes", [1, 2])
def test_llamafactory(task, tmp_path, tmp_path_factory, monkeypatch, processes):
    programs = host("llamafactory", tmp_path_factory.getbasetemp())
    config = {
        **{"model_name_or_path": str(task / "model"), "output_dir": str(tmp_path / "run"), "overwrite_cache": True},
        **{"stage": "sft", "do_train": True, "finetuning_type": "full", "template": "empty", "cutoff_len": 64},
        **{"dataset": "sorting", "dataset_dir": str(task), **ARGUMENTS},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    if processes == 2:  # LLaMA-Factory then starts torchrun
        for name, value in {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2", "MASTER_PORT": free_port()}.items():
            monkeypatch.setenv(name, value)
    output = run("llamafactory-cli", "train", tmp_path / "config.yaml", programs=programs)
    assert logged(tmp_path / "run") == curve()
    assert f"Total train batch size (w. parallel, distributed & accumulation) = {2 * processes}" in output


@pytest.mark.hosts
@pytest.mark.parametrize("launcher", [[], ["--launcher", "python"]])
def test_axolotl(task, tmp_path, tmp_path_factory, launcher):
    programs = host("axolotl", tmp_path_factory.getbasetemp())
    config = {
        "base_model": str(task / "model"),
        "datasets": [{"path": str(task / "text.jsonl"), "ds_type": "json", "type": "completion"}],
        **{"dataset_prepared_path": str(tmp_path / "prepared"), "output_dir": str(tmp_path / "run")},
        **{"sequence_len": 64, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "optimizer": "adamw_torch"},
        **{"max_steps": STEPS, "warmup_steps": WARMUP, "learning_rate": PEAK, "logging_steps": 1, "save_steps": STEPS},
        "lr_scheduler": SCHEDULE["lr_scheduler_type"],
        "lr_scheduler_kwargs": SCHEDULE["lr_scheduler_kwargs"],
        **dict.fromkeys(("bf16", "fp16", "tf32", "flash_attention"), False),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    run("axolotl", "train", tmp_path / "config.yaml", *launcher, programs=programs)
    assert logged(tmp_path / "run") == curve()


# As in diffusers' examples.
DIFFUSERS = """
import argparse, json, sys, torch
from accelerate import Accelerator
from diffusers import UNet2DModel
from diffusers.optimization import get_scheduler

parser = argparse.ArgumentParser()
parser.add_argument("--lr_scheduler", type=str)
parser.add_argument("--lr_num_cycles", type=int, default=1)
parser.add_argument("--lr_power", type=float, default=1.0)
args = parser.parse_args()
accelerator = Accelerator(cpu=True)
down, up = ("DownBlock2D",) * 2, ("UpBlock2D",) * 2
model = UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
    down_block_types=down, up_block_types=up,
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = get_scheduler(
    args.lr_scheduler, optimizer=optimizer, num_warmup_steps=2 * accelerator.num_processes,
    num_training_steps=8 * accelerator.num_processes, num_cycles=args.lr_num_cycles, power=args.lr_power,
)
model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
used = []
for _ in range(8):
    noise = torch.randn(2, 1, 8, 8)
    accelerator.backward((model(noise, torch.tensor([1, 2])).sample - noise).square().mean())
    used.append(optimizer.param_groups[0]["lr"])
    optimizer.step()
    scheduler.step()
    optimizer.zero_grad()
print(json.dumps(used))
"""


@pytest.mark.hosts
def test_diffusers(tmp_path, tmp_path_factory):
    programs = host("diffusers", tmp_path_factory.getbasetemp())
    script = tmp_path / "train.py"
    script.write_text(DIFFUSERS)

    def train(*words: object, ok: bool = True) -> str:
        return run("python", script, *words, programs=programs, ok=ok).strip().splitlines()[-1]

    def planned(name: str, **kwargs: object) -> list[float]:
        schedule = hf_sched.build(name, num_training_steps=8, num_warmup_steps=2, **kwargs)
        return schedule.curve(peak=1e-3).tolist()

    assert json.loads(train("--lr_scheduler", "cosine_floor")) == planned("cosine_floor")
    cycles = train("--lr_scheduler", "cosine_restarts", "--lr_num_cycles", 2)
    assert json.loads(cycles) == planned("cosine_restarts", num_cycles=2)
    assert len(json.loads(train("--lr_scheduler", "cosine"))) == 8
    assert "`num_cycles` is not an argument of cosine_floor, received 2" in train(
        "--lr_scheduler", "cosine_floor", "--lr_num_cycles", 2, ok=False
    )
    assert "did you mean 'cosine_floor'?" in train("--lr_scheduler", "cosin_floor", ok=False)
