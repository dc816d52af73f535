"""Ends a run that lost one of its processes (a dead node, a broken network) with a message about how to resume.

The remaining processes notice at their next collective operation: within seconds if the connection was closed, as the
system does for a killed process, or after `ddp_timeout` if the other side is silent. NCCL's watchdog may end a process
before Python can print anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from hf_sched.finetune.checkpoints.selection import last_complete

logger = logging.getLogger(__name__)


@contextmanager
def explain_lost_process(trainer: Any) -> Iterator[None]:
    """Exit with status 1 and one message if another process of the run is gone."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        logger.error(_message(trainer, error))
        raise SystemExit(1) from error


def bound_waiting(training_args: Any) -> None:
    """Apply `ddp_timeout` on CPUs, where the Trainer does not; without it gloo waits for 30 minutes."""
    group: Any = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    if training_args.use_cpu and hasattr(group, "set_timeout"):  # not in all versions of torch
        group.set_timeout(training_args.ddp_timeout_delta)


def _is_lost_connection(error: RuntimeError) -> bool:
    # NCCL and the store raise subclasses of DistError. gloo raises a bare RuntimeError, which only the path of its
    # source file in the message distinguishes from others.
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _message(trainer: Any, error: RuntimeError) -> str:
    args, state = trainer.args, trainer.state
    kept = last_complete(args.output_dir)
    checkpoint = f", which resumes from {kept}" if kept else "; no checkpoint has been written"
    return (
        f"step {state.global_step + 1} of {state.max_steps}: another process of this run, on this node or another, is "
        f"gone or has not answered for `ddp_timeout` ({args.ddp_timeout} s). This process (rank {args.process_index}) "
        "exits.\nTo continue, launch the run again with `resume_from_checkpoint: auto` on each node"
        f"{checkpoint}.\n({str(error).splitlines()[0]})"
    )
