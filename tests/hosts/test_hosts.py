"""Other training programs under `hf-sched run`: every logged learning rate equals the schedule's.

Programs that need their own packages (marker `hosts`, `make test-hosts`) get a virtual environment without hf_sched,
made from the requirements in this folder. It is kept in HF_SCHED_HOSTS if that is set, else in a temporary folder.
"""

from __future__ import annotations

import json
import os
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
GRPO = {"num_generations": 2, "max_completion_length": 4, "reward_funcs": "think_format_reward"}
TWO_PROCESSES = ["accelerate_configs/cpu_2proc.yaml", "--main_process_port", "0"]


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


def curve(name: str = "cosine_floor", **arguments: object) -> list[float]:
    schedule = hf_sched.build(name, num_training_steps=STEPS, num_warmup_steps=WARMUP, **arguments)
    return schedule.curve(peak=PEAK).tolist()


def check_logged(folder: Path) -> None:
    """Compare the learning rates in the last checkpoint with the schedule."""
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    rates = [row["learning_rate"] for row in state["log_history"] if "learning_rate" in row]
    assert rates == curve(floor_ratio=FLOOR)


def of_trl(method: str, task: Path, folder: Path) -> list[str]:
    where = {"model_name_or_path": task / "model", "dataset_name": task / method, "output_dir": folder}
    return flags(**where, **ARGUMENTS, **(GRPO if method == "grpo" else {}))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_trl(task, tmp_path, method):
    run("trl", method, *of_trl(method, task, tmp_path))
    check_logged(tmp_path)


@pytest.mark.slow
def test_trl_on_two_processes(task, tmp_path):
    output = run("trl", "sft", *of_trl("sft", task, tmp_path), "--accelerate_config", *TWO_PROCESSES)
    check_logged(tmp_path)
    assert "'epoch': '0.5'" in output  # 8 steps of 2 processes with 2 of 64 rows each


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
    (tmp_path / "train.py").write_text(TRAINER)
    torchrun = [PROGRAMS / "torchrun", "--standalone", "--nproc_per_node", 2]
    launch, module = ([], ["-m", "hf_sched", "run"]) if as_module else (RUN, [])
    words = [tmp_path / "train.py", task / "model", *flags(output_dir=tmp_path / "run", **ARGUMENTS)]
    output = run(*torchrun, *module, *words, launch=launch)
    check_logged(tmp_path / "run")
    assert output.count("processes 2") == 2


@pytest.mark.slow
def test_module_under_accelerate_launch(task, tmp_path):
    # Not the program `accelerate`: it imports timm if installed, which needs torchvision.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", *TWO_PROCESSES]
    run("-m", "hf_sched", "run", "-m", "trl.scripts.sft", *of_trl("sft", task, tmp_path), launch=launch)
    check_logged(tmp_path)


# A loop without a Trainer, as in the examples of transformers and diffusers: Accelerate prepares the scheduler.
LOOP = """
import json, sys, torch
from accelerate import Accelerator
from {library}.optimization import get_scheduler

accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
options = json.loads(sys.argv[2])
scheduler = get_scheduler(sys.argv[1], optimizer=optimizer, num_warmup_steps=2, num_training_steps=8, **options)
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
def test_loop_with_get_scheduler_of_transformers(tmp_path):
    (tmp_path / "loop.py").write_text(LOOP.format(library="transformers"))
    output = run(sys.executable, tmp_path / "loop.py", "cosine_floor", "{}")
    assert json.loads(output.strip().splitlines()[-1]) == curve()


@pytest.mark.hosts
def test_loop_with_get_scheduler_of_diffusers(tmp_path, tmp_path_factory):
    programs = host("diffusers", tmp_path_factory.getbasetemp())
    (tmp_path / "loop.py").write_text(LOOP.format(library="diffusers"))

    def train(name: str, ok: bool = True, **options: object) -> str:
        words = [tmp_path / "loop.py", name, json.dumps({"num_cycles": 1, "power": 1.0, **options})]
        return run("python", *words, programs=programs, ok=ok).strip().splitlines()[-1]

    assert json.loads(train("cosine_floor")) == curve()
    assert json.loads(train("cosine_restarts", num_cycles=2)) == curve("cosine_restarts", num_cycles=2)
    assert json.loads(train("cosine_restarts:num_cycles=2")) == curve("cosine_restarts", num_cycles=2)
    assert json.loads(train("cosine_with_restarts:num_cycles=2")) == json.loads(
        train("cosine_with_restarts", num_cycles=2)
    )
    assert "`num_cycles` is given twice" in train("cosine_with_restarts:num_cycles=2", num_cycles=3, ok=False)
    assert len(json.loads(train("cosine"))) == STEPS
    assert "`num_cycles` is not an argument of cosine_floor" in train("cosine_floor", num_cycles=2, ok=False)
    assert "did you mean 'cosine_floor'?" in train("cosin_floor", ok=False)


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
    check_logged(tmp_path / "run")


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
        monkeypatch.setenv("FORCE_TORCHRUN", "1")
        monkeypatch.setenv("NPROC_PER_NODE", "2")
    output = run("llamafactory-cli", "train", tmp_path / "config.yaml", programs=programs)
    check_logged(tmp_path / "run")
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
    check_logged(tmp_path / "run")
