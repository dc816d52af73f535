"""Training programs measured in child processes."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from benchmarks.common.task import ROOT, RunFailed, child_environment

TIMEOUT = 7200.0  # seconds
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
    config = folder.with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump({**arguments, "output_dir": str(folder)}), encoding="utf-8")
    words = (word.format(kind=kind) for word in SCRIPTS[script])
    return Program((*words, "--config", str(config)), folder)


@dataclass(frozen=True)
class Observed:
    """Measurements of a finished program."""

    wall: float
    """Seconds of wall time."""
    record: Mapping[str, Any]
    """The record that `benchmarks.common.observed` wrote."""
    folder: Path

    @cached_property
    def steps(self) -> npt.NDArray[np.float64]:
        """Seconds of wall time and of CPU time of each optimizer step, of shape (steps, 2)."""
        return np.diff(self.record["marks"], axis=0)

    def logged(self, key: str) -> list[float]:
        """Return the values of a logged quantity."""
        return [row[key] for row in self.record["logs"] if key in row]

    @cached_property
    def weights(self) -> str:
        """A digest of the saved weights."""
        files = sorted(self.folder.glob("*.safetensors"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def run(program: Program) -> Observed:
    """Run a program to its end.

    Raises:
        RunFailed: Its exit status is not 0; the message contains the end of its output.
    """
    record, log = (program.folder.with_suffix(suffix) for suffix in (".json", ".log"))
    command = [sys.executable, "-m", "benchmarks.common.observed", "--record", str(record), "--", *program.words]
    start = time.perf_counter()
    with log.open("wb") as out:
        done = subprocess.run(
            command, cwd=ROOT, stdout=out, stderr=out, env=child_environment(), timeout=TIMEOUT, check=False
        )
    wall = time.perf_counter() - start
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise RunFailed(f"{' '.join(program.words)} ended with {done.returncode}:\n{tail}")
    return Observed(wall, json.loads(record.read_text(encoding="utf-8")), program.folder)


def run_in_rounds(
    programs: Mapping[str, Program], rounds: int, warm_up: Sequence[str]
) -> Iterator[dict[str, Observed]]:
    """Yield the measurements of each round, in which all programs run in shuffled order.

    Those that `warm_up` names run once before, uncounted.
    """
    order = random.Random(0)
    for name in warm_up:
        run(programs[name])
    for _ in range(rounds):
        observed = {name: run(programs[name]) for name in order.sample(list(programs), len(programs))}
        yield {name: observed[name] for name in programs}
