"""Fresh interpreters at the price of a fork: slow imports are made once, and each piece of code runs in a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = """
import json, os, sys, tempfile, traceback
exec(sys.argv[1])
for line in sys.stdin:
    code = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            status = 0
            try:
                exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
            except BaseException:
                status = 1
                traceback.print_exc()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0), err.seek(0)
        answer = json.dumps([status, out.read(), err.read()])
    print(answer, flush=True)
"""


class FreshPython:
    """Runs code in children of an interpreter that has imported `preload` and nothing else."""

    def __init__(self, preload: str = "import torch") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, preload],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, code: str) -> str:
        """Run code that must succeed; what it prints."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(textwrap.dedent(code)), file=self._process.stdin, flush=True)
        status, out, err = json.loads(self._process.stdout.readline())
        assert status == 0, err
        return out.strip()

    def close(self) -> None:
        self._process.communicate(timeout=60)
