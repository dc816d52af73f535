"""A Slurm job on this machine, with the stubs of tests/helpers/launchers/slurm and stand-ins for its programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers.recipes import ROOT, free_port

SCRIPT = ROOT / "recipes" / "slurm" / "train.slurm"
STUBS = ROOT / "tests" / "helpers" / "launchers" / "slurm"
# Loopback addresses, so that each name resolves and differs from the others.
NODES = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

# Replaces `accelerate`: records its arguments and the health of the vLLM server, then exits with the status of its rank
# in STATUS, or waits for SIGTERM.
LAUNCHER = """
import json, os, signal, sys, time
from urllib.request import urlopen
words = sys.argv[1:]
def healthy():
    url = f"http://{words[words.index('--vllm_server_host') + 1]}:{words[words.index('--vllm_server_port') + 1]}/health"
    return urlopen(url, timeout=5).status == 200
def record(**more):
    seen = {"words": words, "node": os.environ["SLURMD_NODENAME"], "cpus": os.environ["SRUN_CPUS_PER_TASK"], **more}
    seen["healthy"] = "--vllm_server_host" in words and healthy()
    with open(f"launch-{os.environ['SLURM_PROCID']}-{len(more)}.json", "w") as file:
        json.dump(seen, file)
def end(number, frame):
    record(terminated=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
record()
status = json.loads(os.environ["STATUS"])[int(os.environ["SLURM_PROCID"])]
if status is None:
    time.sleep(200)
sys.exit(status)
"""
# Replaces `trl vllm-serve`: answers after two seconds, or fails.
SERVER = """
import os, signal, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
words = sys.argv[1:]
Path("server.words").write_text("\\n".join(words))
if os.environ["SERVER"] == "fails":
    sys.exit("no GPU")
def end(number, frame):
    Path("server.ended").write_text("")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
time.sleep(2)
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
HTTPServer(("", int(words[words.index("--port") + 1])), Health).serve_forever()
"""


class Job:
    """A Slurm job: the environment of sbatch, and a folder that looks like the repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("recipes", "accelerate_configs", "tests"):
            (folder / name).symlink_to(ROOT / name)
        # sbatch runs a copy elsewhere, so the script must not look for files next to itself.
        self.script = folder / "spool" / "slurm_script"
        self.script.parent.mkdir()
        shutil.copy(SCRIPT, self.script)
        (folder / "bin").mkdir()
        self.command("srun", f'exec {sys.executable} {STUBS}/srun.py "$@"', shell=True)
        self.command("python", f'exec {sys.executable} "$@"', shell=True)
        self.command("accelerate", f'exec {sys.executable} -m accelerate.commands.accelerate_cli "$@"', shell=True)
        self.number = free_port() % 10000  # the script derives its ports from it
        self.requeued = folder / "requeued"

    def stand_in(self) -> Job:
        """Replace the launcher and vLLM's server by stand-ins."""
        self.command("accelerate", LAUNCHER)
        self.command("trl", SERVER)
        return self

    def command(self, name: str, text: str, *, shell: bool = False) -> None:
        """Add a command to the PATH of the job."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n" if shell else f"#!{sys.executable}\n{text}")
        path.chmod(0o755)

    def start(self, nodes: int, *words: str, gpus: int = 1, **environment: str) -> subprocess.Popen[str]:
        """Start the batch script on the first node."""
        given = {
            "PATH": f"{self.folder / 'bin'}:{STUBS}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NODELIST": ",".join(NODES[:nodes]),
            "SLURM_GPUS_ON_NODE": str(gpus),
            "SLURM_CPUS_ON_NODE": "4",
            # The rank of the batch script, not of a task.
            "SLURM_PROCID": "0",
            "SLURM_NODEID": "0",
            "REQUEUED": str(self.requeued),
            **environment,
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = ["bash", str(self.script), *words]
        return subprocess.Popen(command, cwd=self.folder, env={**os.environ, **given}, **pipes)

    def run(self, nodes: int, *words: str, **given: Any) -> tuple[int, str]:
        """Return the exit status, and the output of the script and the nodes."""
        script = self.start(nodes, *words, **given)
        printed, _ = script.communicate(timeout=500)
        return script.returncode, printed + self.logs()

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("logs/*/*.log")))

    def launched(self, terminated: bool = False) -> list[dict[str, Any]]:
        """What the stand-in for `accelerate` recorded, by rank."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"launch-*-{int(terminated)}.json"))]
