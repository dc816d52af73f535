"""Two hosts on one machine: two network namespaces joined by a veth pair, and trainings spread over both."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.helpers.recipe_runs import Launch, Run, Workshop

HOSTS = ("hf_sched_a", "hf_sched_b")
ADDRESSES = ("10.213.77.1", "10.213.77.2")


class CannotRun(Exception):
    """Raised if this machine cannot run a case; the message says why."""


@contextmanager
def network() -> Iterator[None]:
    """Create the two hosts, and delete them at the end.

    Raises:
        CannotRun: This machine does not allow it.
    """
    if not shutil.which("ip"):
        raise CannotRun("network namespaces need the `ip` command")
    if os.geteuid() != 0:
        raise CannotRun("network namespaces need root")
    try:
        for host in HOSTS:
            _ip("netns", "add", host)
        ends = [_device(host) for host in HOSTS]
        _ip("link", "add", ends[0], "netns", HOSTS[0], "type", "veth", "peer", "name", ends[1], "netns", HOSTS[1])
        for host, end, address in zip(HOSTS, ends, ADDRESSES, strict=True):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", end)
            for device in (end, "lo"):
                _ip("-n", host, "link", "set", device, "up")
        yield
    finally:
        for host in HOSTS:  # this also deletes its end of the pair
            subprocess.run(["ip", "netns", "delete", host], capture_output=True, check=False)


def start_on_both(workshop: Workshop, recipe: str, launch: Launch, of_hosts: list[dict[str, Any]]) -> list[Run]:
    """Start a training across both hosts; `of_hosts` holds the arguments of `Workshop.start` for each."""
    runs = []
    for rank, (host, arguments) in enumerate(zip(HOSTS, of_hosts, strict=True)):
        machines = ["--num_machines", "2", "--machine_rank", str(rank), "--main_process_ip", ADDRESSES[0]]
        run = workshop.start(
            recipe,
            launch,
            launch_words=[*machines, "--main_process_port", "29500"],
            prefix=["ip", "netns", "exec", host],
            environment={"GLOO_SOCKET_IFNAME": _device(host)},
            **arguments,
        )
        runs.append(run)
    return runs


def finish_both(runs: list[Run]) -> list[Run]:
    """Wait for a successful end on both hosts."""
    try:
        return [run.finish() for run in runs]
    finally:
        for run in runs:
            run.kill(run.processes())


def _device(host: str) -> str:
    return f"veth_{host[-1]}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"`ip {' '.join(words)}` is not permitted: {done.stderr.strip()}")
