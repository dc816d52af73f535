"""A stub of Slurm's srun that runs every node on this machine.

Tasks get their arguments unchanged (no shell) and their own SLURM_* variables. Signals go to the tasks, not to their
children (Slurm's `SignalChildrenProcesses=no`). When the step ends, all its processes end.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time

import psutil

FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def main() -> int:
    """Run the tasks; return the highest of their exit statuses."""
    parser = argparse.ArgumentParser(prog="srun", allow_abbrev=False)
    for name in ("nodes", "ntasks", "wait", "kill-on-bad-exit"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("nodelist", "output", "open-mode"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    nodes = args.nodelist.split(",")
    allocated = os.environ["SLURM_JOB_NODELIST"].split(",")
    if not (args.nodes == args.ntasks == len(nodes)) or not set(nodes) <= set(allocated):
        parser.error(f"Requested node configuration is not available: {args}")
    nodes.sort(key=allocated.index)  # ranks follow the order of the allocation, whatever --nodelist says

    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans of the tasks stay children of this process
    tasks: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: object) -> None:
        for task in tasks:
            if task.poll() is None:
                task.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    for rank, node in enumerate(nodes):
        own = {"SLURM_PROCID": rank, "SLURM_NODEID": rank, "SLURM_LOCALID": 0, "SLURM_STEP_NUM_TASKS": len(nodes)}
        environment = {**os.environ, **{key: str(value) for key, value in own.items()}, "SLURMD_NODENAME": node}
        with open(args.output.replace("%N", node), {"append": "ab", "truncate": "wb"}[args.open_mode]) as log:
            tasks.append(
                subprocess.Popen(args.command, env=environment, stdout=log, stderr=log, start_new_session=True)
            )
    while any(task.poll() is None for task in tasks):
        if args.kill_on_bad_exit and any(task.poll() for task in tasks):
            break
        time.sleep(0.05)
    highest = max(_status(task) for task in tasks)
    left = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    for child in left:
        child.kill()
    psutil.wait_procs(left)
    return highest


def _status(task: subprocess.Popen[bytes]) -> int:
    code = task.poll() or 0
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
