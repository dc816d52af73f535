"""Training programs measured in child processes: one alone, or several that take turns step by step."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.common.task import ROOT, RunFailed, child_environment

TIMEOUT = 1800.0  # seconds until the next mark or the end
WARM_UP = 2
"""Steps that are not counted, because the first ones allocate memory."""
BARE, RECIPE = "TRL's script", "recipe"
SCRIPTS = {BARE: ("-m", "trl.scripts.{kind}"), RECIPE: ("recipes/{kind}.py",)}


@dataclass(frozen=True)
class Program:
    """A command line (a script or `-m module`, with arguments) and the folder it writes its model to."""

    words: tuple[str, ...]
    folder: Path


def training(script: str, kind: str, folder: Path, arguments: Mapping[str, Any]) -> Program:
    """Return a training of a kind (`sft` or `grpo`) by one of `SCRIPTS`; its YAML file lies next to the folder."""
    config = folder.parent / f"{folder.name}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump({**arguments, "output_dir": str(folder)}), encoding="utf-8")
    words = (word.format(kind=kind) for word in SCRIPTS[script])
    return Program((*words, "--config", str(config)), folder)


class Step(NamedTuple):
    """Seconds of an optimizer step: wall time, CPU time, and CPU time in callbacks."""

    wall: float
    cpu: float
    callbacks: float


@dataclass(frozen=True)
class Observed:
    """Measurements of a finished program: seconds of wall time (without waiting for turns) and of CPU time, memory."""

    wall: float
    cpu: float
    peak_bytes: int
    record: Mapping[str, Any]
    """The record that `benchmarks.common.observed` wrote."""
    folder: Path

    @cached_property
    def steps(self) -> list[Step]:
        """Each optimizer step, from its beginning to the beginning of the next."""
        return [
            Step(*(after - before for before, after in zip(begin, end, strict=True)))
            for (_, begin), (end, _) in pairwise(self.record["marks"])
        ]

    def logged(self, key: str) -> list[float]:
        """Return the values of a logged quantity."""
        return [row[key] for row in self.record["logs"] if key in row]

    @cached_property
    def weights(self) -> str:
        """A digest of the saved weights."""
        files = sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise RunFailed(f"{self.folder} holds no weights")
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Child:
    """A running program."""

    def __init__(self, program: Program, in_turns: bool) -> None:
        self.program = program
        program.folder.parent.mkdir(parents=True, exist_ok=True)
        self._record, self._log = (program.folder.parent / f"{program.folder.name}.{end}" for end in ("json", "log"))
        self._turns, other_end = socket.socketpair()
        self._turns.settimeout(TIMEOUT)
        command = [sys.executable, "-m", "benchmarks.common.observed", "--record", str(self._record)]
        command += ["--turns", str(other_end.fileno())] if in_turns else []
        with self._log.open("wb") as log, other_end:
            self._start = time.perf_counter()
            self._process = subprocess.Popen(
                [*command, "--", *program.words],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                pass_fds=[other_end.fileno()],
                env=child_environment(),
            )

    def wait_for_mark(self) -> bool:
        """Wait until a step begins or the last one is done; return False if the program ends."""
        try:
            return bool(self._turns.recv(1))
        except TimeoutError:
            self.kill()
            raise RunFailed(f"{' '.join(self.program.words)}: no progress for {TIMEOUT:g} s") from None

    def resume(self) -> None:
        """Let the program run until the next mark."""
        self._turns.send(b".")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._turns.close()

    def finish(self) -> Observed:
        """Wait for a successful end and read the record."""
        _, status, usage = os.wait4(self._process.pid, 0)
        wall = time.perf_counter() - self._start
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._turns.close()
        if self._process.returncode:
            tail = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise RunFailed(f"{' '.join(self.program.words)} ended with {self._process.returncode}:\n{tail}")
        record = json.loads(self._record.read_text(encoding="utf-8"))
        wall -= sum(resumed[0] - reached[0] for reached, resumed in record["marks"])
        unit = 1 if sys.platform == "darwin" else 1024
        return Observed(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, record, self.program.folder)


def run_alone(program: Program) -> Observed:
    """Run one program to its end."""
    child = _Child(program, in_turns=False)
    child.wait_for_mark()  # there are no marks without turns, so this waits for the end
    return child.finish()


def run_in_turns(programs: Mapping[str, Program], order: random.Random) -> dict[str, Observed]:
    """Run programs so that only one works at a time: each starts, steps and ends in turn, in shuffled order.

    Other load on the machine then affects all of them alike, because their steps are at most a step apart.
    """
    children: dict[str, _Child] = {}
    observed: dict[str, Observed] = {}

    def go_to_mark(name: str) -> None:
        if not children[name].wait_for_mark():
            observed[name] = children[name].finish()

    try:
        for name in order.sample(list(programs), len(programs)):
            children[name] = _Child(programs[name], in_turns=True)
            go_to_mark(name)
        while waiting := [name for name in children if name not in observed]:
            for name in order.sample(waiting, len(waiting)):
                children[name].resume()
                go_to_mark(name)
    finally:
        for name in children.keys() - observed.keys():
            children[name].kill()
    return {name: observed[name] for name in programs}
