"""Other training programs, unmodified: every learning rate that they use equals the schedule's.

Programs that need their own packages (marker `hosts`, `make test-hosts`) get a virtual environment without hf_sched,
made from `requirements/`. HF_SCHED_HOSTS names a folder that keeps the environments; otherwise each is deleted before
the next is made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

import hf_sched

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = Path(sys.executable).parent
RUN = [sys.executable, "-m", "hf_sched", "run"]
STEPS, WARMUP, PEAK, FLOOR = 8, 2, 1e-3, 0.2
TEXT = f"cosine_floor:floor_ratio={FLOOR}"
SCHEDULE = {"lr_scheduler_type": "cosine_floor", "lr_scheduler_kwargs": {"floor_ratio": FLOOR}}
ARGUMENTS = {
    **{"max_steps": STEPS, "warmup_steps": WARMUP, "learning_rate": PEAK, "use_cpu": True, "bf16": False},
    **{"logging_steps": 1, "save_strategy": "steps", "save_steps": STEPS, "report_to": "none"},
    **{"per_device_train_batch_size": 2, "output_dir": "{out}"},
}


@dataclass(frozen=True)
class Host:
    """How to train 8 steps, in a process of which `{task}` is the folder with data and `{out}` the output folder."""

    command: list[object]
    environment: str = ""
    """The name of its requirements; by default the tests' own environment."""
    launch: list[object] = field(default_factory=lambda: RUN)
    """How to start the command. An empty list is for programs that import hf_sched themselves."""
    config: dict[str, Any] = field(default_factory=dict)
    """Written to `{out}/config.yaml`."""
    variables: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    epoch: float = STEPS * 2 / 64
    """The part of the data that one process sees."""
    logs_next_step: bool = False
    """Whether it logs the learning rate after the scheduler's step."""
    prints: str = ""


def flags(**given: object) -> list[str]:
    words = []
    for key, value in given.items():
        words += [f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def script(name: str) -> Path:
    return HERE / "scripts" / name


def torchrun(processes: int) -> list[object]:
    return ["torchrun", "--standalone", "--nproc_per_node", processes]


ACCELERATE_CONFIG = ["accelerate_configs/cpu_2proc.yaml", "--main_process_port", "0"]
TRAINER = [script("train_trainer.py"), "{task}/model", *flags(**ARGUMENTS, **SCHEDULE)]


def of_trl(method: str, **others: object) -> list[str]:
    where = {"model_name_or_path": "{task}/model", "dataset_name": f"{{task}}/{method}"}
    return flags(**where, **ARGUMENTS, **SCHEDULE, **others)


OF_GRPO = {"num_generations": 2, "max_completion_length": 4}
IN_OWN_ENVIRONMENT = {
    "trl-sft": Host(["trl", "sft", *of_trl("sft")]),
    "trl-dpo": Host(["trl", "dpo", *of_trl("dpo")]),
    "trl-grpo": Host(["trl", "grpo", *of_trl("grpo", **OF_GRPO, reward_funcs="think_format_reward")], epoch=0.125),
    "trl-sft-2": Host(["trl", "sft", *of_trl("sft"), "--accelerate_config", *ACCELERATE_CONFIG], processes=2),
    # Not the program `accelerate`: it imports timm if installed, which needs torchvision.
    "trl-sft-module-2": Host(
        ["-m", "hf_sched", "run", "-m", "trl.scripts.sft", *of_trl("sft")],
        launch=[sys.executable, "-m", "accelerate.commands.launch", "--config_file", *ACCELERATE_CONFIG],
        processes=2,
    ),
    "trainer-2": Host([*torchrun(2), *TRAINER], processes=2),
    "trainer-module-2": Host(["-m", "hf_sched", "run", *TRAINER], launch=torchrun(2), processes=2),
    "transformers": Host([sys.executable, script("train_with_get_scheduler.py"), "{out}", "transformers", TEXT]),
}

SENTENCE_TRANSFORMERS = [script("train_sentence_transformers.py"), "{task}/model", *flags(**ARGUMENTS, **SCHEDULE)]
LLAMAFACTORY = {
    **{"model_name_or_path": "{task}/model", "stage": "sft", "do_train": True, "finetuning_type": "full"},
    **{"dataset": "sorting", "dataset_dir": "{task}", "template": "empty", "cutoff_len": 64, "overwrite_cache": True},
    **ARGUMENTS,
    **SCHEDULE,
}
SWIFT = flags(
    **{"model": "{task}/model", "model_type": "llama", "template": "dummy", "dataset": "{task}/messages.jsonl"},
    **{"tuner_type": "full", "torch_dtype": "float32", "gradient_accumulation_steps": 1},
    **{"split_dataset_ratio": 0, "add_version": False, "lr_scheduler_type": TEXT},
    **ARGUMENTS,
)
SWIFT_GRPO = ["--rlhf_type", "grpo", *flags(**OF_GRPO, reward_funcs="format"), *SWIFT]
OF_SWIFT: dict[str, Any] = {"environment": "ms-swift", "logs_next_step": True}
HUB = {"USE_HF": "1"}  # ModelScope's hub has no offline mode
TWO = HUB | {"NPROC_PER_NODE": "2"}
AXOLOTL = {
    "base_model": "{task}/model",
    "datasets": [{"path": "{task}/text.jsonl", "ds_type": "json", "type": "completion"}],
    **{"dataset_prepared_path": "{out}/prepared", "output_dir": "{out}"},
    **{"sequence_len": 64, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "optimizer": "adamw_torch"},
    **{"max_steps": STEPS, "warmup_steps": WARMUP, "learning_rate": PEAK, "logging_steps": 1, "save_steps": STEPS},
    **dict.fromkeys(("bf16", "fp16", "tf32"), False),
}
AXOLOTL_PLUGIN = {**AXOLOTL, "lr_scheduler": TEXT, "plugins": ["hf_sched.integrations.axolotl.SchedulePlugin"]}
AXOLOTL_NAME = {**AXOLOTL, "lr_scheduler": "cosine_floor", "lr_scheduler_kwargs": SCHEDULE["lr_scheduler_kwargs"]}
OF_AXOLOTL = ["axolotl", "train", "{out}/config.yaml", "--launcher"]
PLUGIN_IS_USED = "Using plugin-created lr_scheduler: <hf_sched"
HOSTS = {
    "ms-swift-sft": Host(["swift", "sft", *SWIFT], variables=HUB, **OF_SWIFT),
    "ms-swift-sft-2": Host(["swift", "sft", *SWIFT], variables=TWO, processes=2, **OF_SWIFT),
    "ms-swift-grpo": Host(["swift", "rlhf", *SWIFT_GRPO], variables=HUB, epoch=0.125, **OF_SWIFT),
    "ms-swift-grpo-2": Host(["swift", "rlhf", *SWIFT_GRPO], variables=TWO, processes=2, epoch=0.125, **OF_SWIFT),
    "lightning": Host(["python", script("train_lightning.py"), 1, "{out}"], "lightning", []),
    "lightning-2": Host(["python", script("train_lightning.py"), 2, "{out}"], "lightning", [], processes=2),
    "openrlhf": Host([*torchrun(1), script("train_openrlhf.py"), "{out}"], "openrlhf"),
    "openrlhf-2": Host([*torchrun(2), script("train_openrlhf.py"), "{out}"], "openrlhf", processes=2),
    "skyrl": Host(["python", script("train_skyrl.py"), "{out}"], "skyrl"),
    "verl": Host(["python", script("train_verl.py"), "{out}"], "verl", []),
    "setfit": Host(["python", script("train_setfit.py"), "{task}/model", "{out}"], "setfit", epoch=1.0),
    "axolotl-plugin": Host([*OF_AXOLOTL, "python"], "axolotl", [], AXOLOTL_PLUGIN, prints=PLUGIN_IS_USED),
    "axolotl-name": Host([*OF_AXOLOTL, "accelerate"], "axolotl", config=AXOLOTL_NAME),
    "llamafactory": Host(["llamafactory-cli", "train", "{out}/config.yaml"], "llamafactory", config=LLAMAFACTORY),
    "llamafactory-2": Host(
        ["llamafactory-cli", "train", "{out}/config.yaml"],
        "llamafactory",
        config=LLAMAFACTORY,
        variables={"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"},
        processes=2,
    ),
    "sentence-transformers": Host(["python", *SENTENCE_TRANSFORMERS], "sentence-transformers"),
    "sentence-transformers-2": Host([*torchrun(2), *SENTENCE_TRANSFORMERS], "sentence-transformers", processes=2),
    "diffusers": Host(["python", script("train_with_get_scheduler.py"), "{out}", "diffusers", TEXT], "diffusers"),
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
    with (folder / "text.jsonl").open("w") as text, (folder / "messages.jsonl").open("w") as messages:
        for row, (prompt, answer) in zip(rows, texts, strict=True):
            print(json.dumps({"text": prompt + answer}), file=text)
            print(json.dumps({"messages": row["prompt"] + row["completion"]}), file=messages)
    (folder / "dataset_info.json").write_text(json.dumps({"sorting": {"file_name": "sorting.json"}}))
    instructions = [{"instruction": prompt, "input": "", "output": answer} for prompt, answer in texts]
    (folder / "sorting.json").write_text(json.dumps(instructions))
    return folder


@pytest.fixture(scope="session")
def environments() -> Iterator[Path]:
    """The folder of the virtual environments."""
    with TemporaryDirectory(prefix="hosts") as temporary:
        yield Path(os.environ.get("HF_SCHED_HOSTS", temporary))


def install(environment: str, environments: Path) -> Path:
    """Make a virtual environment of pinned requirements unless it exists; its folder."""
    folder = environments / environment
    finished = folder / "installed"
    if finished.exists():
        return folder
    if "HF_SCHED_HOSTS" not in os.environ:
        for other in environments.iterdir():
            shutil.rmtree(other)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    constraints = ["--constraint", HERE / "requirements" / "constraints.txt"]
    # axolotl and SkyRL are declared for Python 3.12, and run on 3.11 as well.
    for kind, options in (("txt", constraints), ("no-deps.txt", ["--no-deps", "--ignore-requires-python"])):
        requirements = HERE / "requirements" / f"{environment}.{kind}"
        if requirements.exists():
            pip = [folder / "bin" / "python", "-m", "pip", "install", *options, "-r", requirements]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    # PyPI's build is for CUDA and does not load with torch for CPUs; its Python part suffices.
    for library in folder.glob("lib/*/site-packages/torchaudio/lib/*.so"):
        library.unlink()
    finished.touch()
    return folder


# A process under gloo can abort at exit, after training and saving, if its process group is still alive
# (https://github.com/pytorch/pytorch/issues/190489), as in TRL.
ABORTED_AT_EXIT = "terminate called without an active exception"


def run(host: Host, task: Path, out: Path, environments: Path, ok: bool = True) -> str:
    """Train with a program; its output."""
    own = install(host.environment, environments) if host.environment else None

    def filled(text: object) -> str:
        return str(text).replace("{task}", str(task)).replace("{out}", str(out))

    (out / "config.yaml").write_text(filled(yaml.safe_dump(host.config)))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    programs = own / "bin" if own else PROGRAMS
    environment |= {"PATH": f"{programs}{os.pathsep}{environment['PATH']}", "DS_ACCELERATOR": "cpu"}
    environment |= {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", **host.variables}
    if own:  # what DeepSpeed compiles fits one version of torch and of DeepSpeed
        environment["TORCH_EXTENSIONS_DIR"] = str(own / "torch_extensions")
    if not own or not host.launch:
        environment["PYTHONPATH"] = str(ROOT)  # elsewhere only `hf-sched run` provides hf_sched
    command = [filled(word) for word in (*host.launch, *host.command)]
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)
        output = done.stdout + done.stderr
        if ABORTED_AT_EXIT not in output:
            break
    assert (done.returncode == 0) == ok and host.prints in output, output[-6000:]
    return output


def curve(name: str = TEXT, **arguments: object) -> list[float]:
    schedule = hf_sched.build(name, num_training_steps=STEPS, num_warmup_steps=WARMUP, **arguments)
    return schedule.curve(peak=PEAK).tolist()


def check_rates(host: Host, out: Path) -> None:
    """Compare the learning rates in a script's files, or else in a Trainer's checkpoint, with the schedule."""
    files = [*out.glob("rates*.json")]
    if files:
        assert {f"rates-{rank}.json" for rank in range(host.processes)} <= {file.name for file in files}
        assert {file.name: json.loads(file.read_text()) for file in files} == {file.name: curve() for file in files}
        return
    (checkpoint,) = out.rglob(f"checkpoint-{STEPS}/trainer_state.json")
    state = json.loads(checkpoint.read_text())
    rates = [row["learning_rate"] for row in state["log_history"] if "learning_rate" in row]
    assert rates == ([*curve()[1:], FLOOR * PEAK] if host.logs_next_step else curve())
    assert state["epoch"] == host.epoch * host.processes


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_OWN_ENVIRONMENT)
def test_program_trains_at_the_rates_of_the_schedule(task, tmp_path, environments, name):
    host = IN_OWN_ENVIRONMENT[name]
    run(host, task, tmp_path, environments)
    check_rates(host, tmp_path)


@pytest.mark.hosts
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", HOSTS)
def test_program_with_its_own_packages_trains_at_the_rates_of_the_schedule(task, tmp_path, environments, name):
    host = HOSTS[name]
    run(host, task, tmp_path, environments)
    check_rates(host, tmp_path)


@pytest.mark.hosts
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cosine_floor", {}, curve("cosine_floor")),
        ("cosine_restarts", {"num_cycles": 2}, curve("cosine_restarts", num_cycles=2)),
        ("cosine_restarts:num_cycles=2", {}, curve("cosine_restarts", num_cycles=2)),
        ("cosine_with_restarts:num_cycles=2", {"num_cycles": 3}, "`num_cycles` is given twice"),
        ("cosine_floor", {"num_cycles": 2}, "`num_cycles` is not an argument of cosine_floor"),
        ("cosin_floor", {}, "did you mean 'cosine_floor'?"),
    ],
)
def test_diffusers_passes_the_arguments_of_its_scripts(task, tmp_path, environments, name, options, expected):
    given = json.dumps({"num_cycles": 1, "power": 1.0, **options})
    command = ["python", script("train_with_get_scheduler.py"), "{out}", "diffusers", name, given]
    is_error = isinstance(expected, str)
    output = run(Host(command, "diffusers"), task, tmp_path, environments, ok=not is_error)
    if is_error:
        assert expected in output.strip().splitlines()[-1]
    else:
        assert json.loads((tmp_path / "rates-0.json").read_text()) == expected


@pytest.mark.hosts
@pytest.mark.timeout(3600)
def test_diffusers_own_schedules_take_arguments_in_the_text(task, tmp_path, environments):
    rates = []
    for name, options in (("cosine_with_restarts:num_cycles=2", {}), ("cosine_with_restarts", {"num_cycles": 2})):
        command = ["python", script("train_with_get_scheduler.py"), "{out}", "diffusers", name, json.dumps(options)]
        run(Host(command, "diffusers"), task, tmp_path, environments)
        rates.append(json.loads((tmp_path / "rates-0.json").read_text()))
    assert rates[0] == rates[1]
