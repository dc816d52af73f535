"""A damaged file of a run gives one error in one line that names it, in every tool that reads it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hf_sched
from hf_sched._run_files import COOLDOWN_STATUS, LEARNING_RATES
from hf_sched.audit import audit
from hf_sched.callbacks.cooldown_request import Request, send_request
from hf_sched.finetune.checkpoints.selection import missing_part
from hf_sched.finetune.reports.report import report
from hf_sched.plan import plan
from hf_sched.plan.training_config import TrainingConfig
from tests.helpers.live_cooldown import WSD, train


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def flip_bytes(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 200]) + content[middle + 200 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "flipped bytes": flip_bytes,
    "binary": lambda content: b"\x00\xff\xfe damaged" * 50,
    "a Git LFS pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "another JSON value": lambda content: b"[]",
    "another JSON object": lambda content: b'{"global_step": "x", "log_history": {"a": 1}}',
    "deep JSON": lambda content: b"[" * 100_000,
    "another pickle": lambda content: pickled(5),
    "a pickle without keys": lambda content: pickled({}),
}


@pytest.fixture(scope="module")
def trained(model_path, tmp_path_factory):
    """A run that is cooled down from, with and without a log of its learning rates."""
    folder = tmp_path_factory.mktemp("trained")
    train(model_path, folder, **WSD, save_strategy="steps", save_steps=20)
    return folder


def audit_without_log(folder: Path) -> None:
    (folder / LEARNING_RATES).unlink()
    audit(folder)


def plan_cooldown(folder: Path) -> None:
    given = {"anneal_from": str(folder / "checkpoint-20"), "learning_rate": 1e-3}
    plan(TrainingConfig("sft", given, "a test"), dataset_size=100)


TOOLS: dict[str, Callable[[Path], Any]] = {
    "audit": audit,
    "audit of the Trainer's state": audit_without_log,
    "report": lambda folder: report([folder], None, folder / "report.md", html=False),
    "cooldown of a checkpoint": lambda folder: hf_sched.anneal_from(folder / "checkpoint-20"),
    "plan of a cooldown": plan_cooldown,
    "cooldown of a run": lambda folder: send_request(folder, Request(2)),
}
MUST_FAIL = {
    ("trainer_state.json", "audit of the Trainer's state"),
    ("checkpoint-40/training_args.bin", "audit of the Trainer's state"),
    ("checkpoint-20/scheduler.pt", "cooldown of a checkpoint"),
    ("checkpoint-20/scheduler.pt", "plan of a cooldown"),
    ("checkpoint-20/trainer_state.json", "cooldown of a checkpoint"),
    (COOLDOWN_STATUS, "cooldown of a run"),
}
FILES = sorted({file for file, _ in MUST_FAIL} | {LEARNING_RATES})


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_damaged_file_gives_one_line_in_every_tool(trained, tmp_path, file, damage):
    for number, (tool, use) in enumerate(TOOLS.items()):
        folder = shutil.copytree(trained, tmp_path / str(number), ignore=shutil.ignore_patterns("*.safetensors"))
        (folder / file).write_bytes(DAMAGES[damage]((folder / file).read_bytes()))
        try:
            use(folder)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1
            is_about_file = Path(file).name in str(error)
        else:
            is_about_file = False
        if (file, tool) in MUST_FAIL and damage != "empty":  # an empty state is that of a killed process
            assert is_about_file, tool


@pytest.mark.parametrize("damage", ["cut off", "flipped bytes", "binary"])
def test_automatic_resume_skips_a_checkpoint_with_a_damaged_scheduler(trained, tmp_path, damage):
    folder = shutil.copytree(trained / "checkpoint-20", tmp_path / "checkpoint-20")
    assert missing_part(folder) is None
    (folder / "scheduler.pt").write_bytes(DAMAGES[damage]((folder / "scheduler.pt").read_bytes()))
    assert missing_part(folder) == "scheduler.pt"


@pytest.mark.parametrize("file", ["scheduler.pt", "trainer_state.json"])
def test_resume_of_a_damaged_checkpoint_is_rejected_before_the_model_is_loaded(run_recipe, tmp_path, file):
    saving = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    folder = run_recipe("sft", **saving).folder
    (folder / "checkpoint-1" / file).write_bytes(b"\x80\x02 damaged")
    run = run_recipe("sft", ok=False, **saving, resume_from_checkpoint=str(folder / "checkpoint-1"))
    assert run.returncode == 2
    (error,) = (line for line in run.output.splitlines() if "error" in line)
    assert f"checkpoint-1/{file} is damaged" in error and "Loading weights" not in run.output
