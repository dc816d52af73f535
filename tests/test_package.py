"""The source distribution and the wheel, as they would be published."""

import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

import hf_sched

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_distributions_are_complete_and_pass_the_checks_of_publishing(tmp_path):
    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    run(sys.executable, "-m", "build", "--outdir", str(tmp_path))
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert hf_sched.__version__ in wheel.name
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
    run(str(Path(sys.executable).with_name("check-wheel-contents")), str(wheel))
    in_wheel = set(ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {name for name in tracked if name.startswith("hf_sched/")} <= in_wheel
    with tarfile.open(source) as files:
        in_source = {name.partition("/")[2] for name in files.getnames()}
    assert {name for name in tracked if not name.startswith(".")} <= in_source
