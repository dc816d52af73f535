"""A run that loses one of its processes (a node that died, a cable that was pulled) ends, and says how to go on.

The processes that are left learn of it where they next wait for each other, by an error in gloo's or NCCL's own words:
within seconds where the connections of the lost one were closed, as the system does for a process that was killed, and
after `ddp_timeout` where it has fallen silent. (NCCL's watchdog may end a process before Python can say anything.)
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from hf_sched.finetune.checkpoints.selection import last_whole

# In the errors of gloo, NCCL and the store in which processes meet.
_SIGNS = (
    *("closed by peer", "reset by peer", "broken pipe", "connection refused", "pair closure"),
    *("timed out", "timeout", "remote process exited", "network error", "aborted"),
)


@contextmanager
def explain_lost_process(trainer: Any) -> Iterator[None]:
    """End the program with exit status 1 and one message, should another process of the run be gone."""
    try:
        yield
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {_message(trainer, error)}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error


def bound_waiting(training_args: Any) -> None:
    """Apply `ddp_timeout` on CPUs, too: the Trainer hands it to the process groups of accelerators alone."""
    # Not in all versions of torch; without it gloo waits for half an hour.
    group: Any = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    if training_args.use_cpu and hasattr(group, "set_timeout"):
        group.set_timeout(training_args.ddp_timeout_delta)


def _is_loss(error: RuntimeError) -> bool:
    text = str(error).lower()
    # gloo raises plain RuntimeErrors, which name its source file.
    of_processes = isinstance(error, dist.DistError) or "gloo" in text
    return of_processes and any(sign in text for sign in _SIGNS)


def _message(trainer: Any, error: RuntimeError) -> str:
    args = trainer.args
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checkpoints that are not whole: a resume says it
        kept = last_whole(args.output_dir)
    left = f"on each node; that is from {kept}" if kept else "on each node: no checkpoint had been written"
    return (
        f"step {trainer.state.global_step + 1} of {trainer.state.max_steps}: another process of this run, on this node "
        f"or another, is gone or has not answered for `ddp_timeout` ({args.ddp_timeout} s): its own log says why. "
        "This process (rank "
        f"{args.process_index} of {args.world_size}) ends, too.\nTo go on, launch the run again as it was, with "
        f"`resume_from_checkpoint: auto`, {left}.\n({str(error).splitlines()[0]})"
    )
