"""A process that loses another one of its run ends with a message, and any other error stays what it was."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from hf_sched.finetune.callbacks.peer_failure import bound_waiting, explain_lost_process

OTHER = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
dist.all_reduce(torch.ones(1))
if sys.argv[2] == "silent":
    sys.stdin.read()
os._exit(9)
"""


def trainer(folder: Path, **given: object) -> SimpleNamespace:
    args = SimpleNamespace(output_dir=str(folder), ddp_timeout=1, process_index=0, world_size=2, use_cpu=True, **given)
    args.ddp_timeout_delta = timedelta(seconds=1)
    return SimpleNamespace(args=args, state=SimpleNamespace(global_step=4, max_steps=8))


@pytest.fixture(params=["gone", "silent"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A second process, in a group with this one, that no longer answers."""
    place = f"file://{tmp_path}/store"
    command = [sys.executable, "-c", OTHER, place, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        dist.init_process_group("gloo", init_method=place, rank=0, world_size=2, timeout=timedelta(seconds=120))
        dist.all_reduce(torch.ones(1))
        yield process
        dist.destroy_process_group()
        process.kill()


def test_it_says_so_and_how_to_go_on(other, tmp_path, capsys):
    run, began = trainer(tmp_path), time.monotonic()
    bound_waiting(run.args)
    with pytest.raises(SystemExit) as ended, explain_lost_process(run):
        dist.all_reduce(torch.ones(1))
    assert ended.value.code == 1
    assert time.monotonic() < began + 60, "not the group's own 120 s, but ddp_timeout"
    said = capsys.readouterr().err
    assert "error: step 5 of 8: another process of this run, on this node or another, is gone" in said
    assert "`resume_from_checkpoint: auto`, on each node: no checkpoint had been written." in said


@pytest.mark.parametrize("error", [RuntimeError("the kernel timed out"), ValueError("gloo timed out"), OSError("gone")])
def test_another_error_is_left_alone(tmp_path, error):
    with pytest.raises(type(error), match=str(error)), explain_lost_process(trainer(tmp_path)):
        raise error
