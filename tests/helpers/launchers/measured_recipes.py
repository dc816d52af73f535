"""Run recipes one after another and measure the memory that each takes from the loading of its model on.

    python tests/helpers/launchers/measured_recipes.py OUT.json RECIPE CONFIG [RECIPE CONFIG ...]

Each runs in a fork of this process, so the libraries are imported once. The figures are the kernel's, in bytes: resident
`before` the model is loaded, and the `peak` from then on. Under `accelerate launch` rank 1 writes OUT.1.json.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import runpy
import sys
import traceback
from pathlib import Path

from hf_sched.finetune import grpo, pipeline, sft  # noqa: F401  (imported before the forks)

# Parameters of mallopt(3): return blocks of 128 KiB and more to the kernel as soon as they are freed.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def read(name: str) -> int:
    """Read a figure of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, name
    return int(found[1]) * 1024


def measure(recipe: str, config: str) -> dict[str, int]:
    """Run a recipe in this process."""
    for option, value in ((M_MMAP_THRESHOLD, 2**17), (M_TRIM_THRESHOLD, 2**17), (M_ARENA_MAX, 1)):
        assert ctypes.CDLL(None).mallopt(option, value) == 1
    before = 0
    check = pipeline.check_memory

    def check_and_begin(*args: object, **kwargs: object) -> None:
        nonlocal before
        # In full, because otherwise it does nothing on a CPU, and its imports would count for the training.
        check(*args, **{**kwargs, "in_full": True})  # type: ignore[arg-type]
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = read("VmRSS")

    pipeline.check_memory = check_and_begin
    sys.argv = [recipe, "--config", config]
    try:
        runpy.run_path(recipe, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    return {"before": before, "peak": read("VmHWM")}


def measure_in_a_fork(recipe: str, config: str) -> dict[str, int]:
    """Run a recipe in a child process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(measure(recipe, config)).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return dict(json.loads(pipe.read() or "{}"))


def main() -> None:
    """Measure the recipes named on the command line."""
    out, requested = Path(sys.argv[1]), sys.argv[2:]
    rank = os.environ.get("RANK", "0")
    found = [measure_in_a_fork(*pair) for pair in zip(requested[::2], requested[1::2], strict=True)]
    (out if rank == "0" else out.with_suffix(f".{rank}.json")).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
