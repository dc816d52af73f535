"""Training programs in processes of their own, measured: alone, or several that take turns step by step."""

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

from benchmarks.common.recipe_runs import ROOT, RunFailed

PATIENCE = 1800  # seconds, that a mark or the end may be away
WARM_UP = 2
"""Steps that are not counted: the first ones allocate."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "CI": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Program:
    """What to run: a script or `-m module` with its arguments, and the folder it writes its model to."""

    words: tuple[str, ...]
    folder: Path


class Step(NamedTuple):
    """The seconds that an optimizer step took."""

    wall: float
    cpu: float
    callbacks: float
    """Of the CPU time, what was spent in callbacks."""


@dataclass(frozen=True)
class Observed:
    """What a program took, and what it logged."""

    wall: float
    """Seconds, without those in which it waited for its turn."""
    cpu: float
    """Seconds of user and system time, those of its own child processes among them."""
    peak_bytes: int
    """The most memory that it had resident."""
    record: Mapping[str, Any]
    """See observed.py."""
    folder: Path

    @cached_property
    def steps(self) -> list[Step]:
        """Each optimizer step, from the beginning of one to that of the next."""
        marks = self.record["marks"]
        return [
            Step(*(after - before for before, after in zip(begin, end, strict=True)))
            for (_, begin), (end, _) in pairwise(marks)
        ]

    def logged(self, key: str) -> list[float]:
        """What each step logged under a name."""
        return [row[key] for row in self.record["logs"] if key in row]

    @cached_property
    def weights(self) -> str:
        """A digest of the weights that it saved."""
        files = sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise RunFailed(f"{self.folder} holds no weights")
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class Child:
    """A program that has been started."""

    def __init__(
        self, program: Program, *, core: int | None = None, in_turns: bool = False, environment: Mapping[str, str]
    ) -> None:
        self.program = program
        program.folder.parent.mkdir(parents=True, exist_ok=True)
        self._record = program.folder.parent / f"{program.folder.name}.record.json"
        self._log = program.folder.parent / f"{program.folder.name}.log"
        self._turns, theirs = socket.socketpair()
        self._turns.settimeout(PATIENCE)
        command = [sys.executable, "-m", "benchmarks.common.observed", "--record", str(self._record)]
        command += ["--core", str(core)] if core is not None else []
        command += ["--turns", str(theirs.fileno())] if in_turns else []
        with self._log.open("wb") as log, theirs:
            self._began = time.perf_counter()
            self._process = subprocess.Popen(
                [*command, "--", *program.words],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_OFFLINE, "PYTHONPATH": str(ROOT), **environment},
            )

    def reaches_a_mark(self) -> bool:
        """Wait until it begins a step or has made the last; False if it has ended."""
        try:
            return bool(self._turns.recv(1))
        except TimeoutError:
            self.kill()
            raise RunFailed(f"{' '.join(self.program.words)}: nothing for {PATIENCE} s") from None

    def go_on(self) -> None:
        """Let it go on, as far as the next mark."""
        self._turns.send(b".")

    def kill(self) -> None:
        """End it here and now."""
        self._process.kill()
        self._process.wait()
        self._turns.close()

    def finish(self) -> Observed:
        """Wait for its end, which must be a success."""
        _, status, usage = os.wait4(self._process.pid, 0)
        wall = time.perf_counter() - self._began
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._turns.close()
        if self._process.returncode:
            tail = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise RunFailed(f"{' '.join(self.program.words)} ended with {self._process.returncode}:\n{tail}")
        record = json.loads(self._record.read_text(encoding="utf-8"))
        wall -= sum(went_on[0] - reached[0] for reached, went_on in record["marks"])
        in_kilobytes = 1 if sys.platform == "darwin" else 1024
        return Observed(
            wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * in_kilobytes, record, self.program.folder
        )


def run_alone(program: Program, *, core: int | None = None, environment: Mapping[str, str]) -> Observed:
    """Run a program by itself."""
    child = Child(program, core=core, environment=environment)
    child.reaches_a_mark()  # it makes none known, so that this is its end
    return child.finish()


def run_in_turns(
    programs: Mapping[str, Program], order: random.Random, *, core: int | None = None, environment: Mapping[str, str]
) -> dict[str, Observed]:
    """Run programs so that only one is at work at a time: each starts, steps and ends in turn, in shuffled order.

    What else the machine does hits all of them alike, since their steps are no further apart than a step takes.
    """
    children: dict[str, Child] = {}
    observed: dict[str, Observed] = {}

    def go_to_mark(name: str) -> None:
        if not children[name].reaches_a_mark():
            observed[name] = children[name].finish()

    try:
        for name in order.sample(list(programs), len(programs)):
            children[name] = Child(programs[name], core=core, in_turns=True, environment=environment)
            go_to_mark(name)
        while waiting := [name for name in children if name not in observed]:
            for name in order.sample(waiting, len(waiting)):
                children[name].go_on()
                go_to_mark(name)
    finally:
        for name in children.keys() - observed.keys():
            children[name].kill()
    return {name: observed[name] for name in programs}
