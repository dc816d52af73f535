"""A process that loses another one of its run exits with a message; other errors are left alone."""

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


def trainer(folder: Path) -> SimpleNamespace:
    args = SimpleNamespace(output_dir=str(folder), ddp_timeout=1, process_index=0, world_size=2, use_cpu=True)
    args.ddp_timeout_delta = timedelta(seconds=1)
    return SimpleNamespace(args=args, state=SimpleNamespace(global_step=4, max_steps=8))


@pytest.fixture(params=["gone", "silent"])
def other_process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A second process in a group with this one, which then exits or falls silent."""
    place = f"file://{tmp_path}/store"
    command = [sys.executable, "-c", OTHER, place, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        dist.init_process_group("gloo", init_method=place, rank=0, world_size=2, timeout=timedelta(seconds=120))
        dist.all_reduce(torch.ones(1))
        yield
        dist.destroy_process_group()
        process.kill()


@pytest.mark.usefixtures("other_process")
def test_lost_process_is_reported_with_how_to_resume(tmp_path, caplog):
    run, began = trainer(tmp_path), time.monotonic()
    bound_waiting(run.args)
    with pytest.raises(SystemExit) as ended, explain_lost_process(run):
        dist.all_reduce(torch.ones(1))
    assert ended.value.code == 1
    assert time.monotonic() < began + 60, "ddp_timeout applies, not the group's own 120 s"
    assert "step 5 of 8: another process of this run, on this node or another, is gone" in caplog.text
    assert "`resume_from_checkpoint: auto` on each node; no checkpoint has been written." in caplog.text


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (dist.DistBackendError("NCCL"), SystemExit),
        (dist.DistNetworkError("reset by peer"), SystemExit),
        (RuntimeError("the kernel timed out"), RuntimeError),
        (ValueError("gloo/transport"), ValueError),
    ],
)
def test_errors_of_nccl_and_the_store_count_as_a_lost_process_and_others_do_not(tmp_path, error, raised):
    with pytest.raises(raised), explain_lost_process(trainer(tmp_path)):
        raise error
