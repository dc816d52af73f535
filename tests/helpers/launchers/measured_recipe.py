"""Run a recipe and write how much memory it took beyond what was resident before its model was loaded.

    python tests/helpers/launchers/measured_recipe.py OUT.json RECIPE CONFIG

The figures are the kernel's: bytes resident `before` the model is loaded, and the `peak` from then on.
"""

from __future__ import annotations

import ctypes
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from hf_sched.finetune import (
    grpo,  # noqa: F401  (imported before the measurement)
    pipeline,
    sft,  # noqa: F401
)

# Options of mallopt(3): from 128 KiB on, freed memory returns to the kernel at once.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


def read(name: str) -> int:
    """Read a figure of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, name
    return int(found[1]) * 1024


def main() -> None:
    """Run the recipe of the command line."""
    out, recipe, config = sys.argv[1:]
    for option, value in ((M_MMAP_THRESHOLD, 2**17), (M_TRIM_THRESHOLD, 2**17), (M_ARENA_MAX, 1)):
        assert ctypes.CDLL(None).mallopt(option, value) == 1
    before, check = 0, pipeline.check_memory

    def check_and_begin(*args: Any, **kwargs: Any) -> None:
        nonlocal before
        check(*args, **{**kwargs, "in_full": True})  # on a CPU it would otherwise do nothing
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = read("VmRSS")

    pipeline.check_memory = check_and_begin
    sys.argv = [recipe, "--config", config]
    try:
        runpy.run_path(recipe, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    Path(out).write_text(json.dumps({"before": before, "peak": read("VmHWM")}))


if __name__ == "__main__":
    main()
