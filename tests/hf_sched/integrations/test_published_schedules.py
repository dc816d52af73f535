"""Schedules that an installed package publishes as entry points, and functions named by their paths in a YAML file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hf_sched
from tests.helpers.extras import require

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder in which the example package is installed."""
    folder = tmp_path_factory.mktemp("published")
    source = shutil.copytree(ROOT / "tests" / "helpers" / "published_schedules", folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", folder / "site", source], check=True)
    return folder / "site"


def python(*words: object, cwd: Path, path: tuple[Path, ...] = ()) -> tuple[str, str]:
    """What a command of Python prints, and what it writes to stderr."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path)))}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip(), done.stderr


def test_published_schedules_are_known_to_the_commands_and_to_a_trainer(site, tmp_path):
    printed, warned = python("-m", "hf_sched", "list", cwd=tmp_path, path=(site,))
    assert [" ".join(line.split()) for line in printed.splitlines() if line.startswith("published")] == [
        "published_half yours Decay linearly to half of the peak.",
        "published_trapezoid yours Hold the peak, then decay linearly to the floor.",
    ]
    # Each broken entry point is named in one warning.
    of_package = "of published-schedules (published_schedules:"
    assert sorted(line.split(" cannot")[0] for line in warned.splitlines()) == [
        f"hf_sched: the schedule 'cosine' {of_package}trapezoid)",
        f"hf_sched: the schedule 'published_missing' {of_package}missing)",
    ]
    code = """
import sys, hf_sched
from transformers import HfArgumentParser, SchedulerType, TrainingArguments, get_cosine_schedule_with_warmup
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
assert "published_schedules" not in sys.modules  # it may import transformers itself
assert "published_trapezoid" in [member.value for member in SchedulerType]
flags = ["--output_dir", "x", "--use_cpu", "--lr_scheduler_type", "published_trapezoid:cooldown=30%"]
(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(flags)
print(hf_sched.build(args.lr_scheduler_type.value, num_training_steps=100, num_warmup_steps=10))
print(hf_sched.build("published_half", num_training_steps=10))
assert TYPE_TO_SCHEDULER_FUNCTION["cosine"] is get_cosine_schedule_with_warmup
"""
    printed, _ = python("-c", code, cwd=tmp_path, path=(site,))
    assert printed.splitlines() == ["warmup 10 | hold 60 | decay 30", "decay 10; floor 0.5"]


MINE = """
import hf_sched

def trapezoid(*, cooldown: hf_sched.Duration = "20%"):
    return [hf_sched.hold(), hf_sched.decay(cooldown)]
"""
SCRIPT = """
from transformers import HfArgumentParser, TrainingArguments
from trl import SFTConfig, TrlParser
(args,) = TrlParser(SFTConfig).parse_args_and_config(["--config", "run.yaml"])
from tests.helpers.trainer import train
arguments = {name: getattr(args, name) for name in ("lr_scheduler_type", "max_steps", "warmup_steps", "learning_rate")}
_, used = train(MODEL, "out", **arguments)
print(used[:, 0].tolist())
"""


def test_one_yaml_line_names_a_function_in_a_file(model_path, tmp_path):
    require("trl")
    (tmp_path / "my_own.py").write_text(MINE)
    given = {"lr_scheduler_type": "my_own.trapezoid:cooldown=50%,floor_ratio=0.1", "max_steps": 12, "warmup_steps": 0}
    given |= {"learning_rate": 0.01, "output_dir": "out", "use_cpu": True, "bf16": False}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(given))
    schedule = hf_sched.Schedule.parse("hold | decay 50%; floor 0.1", num_training_steps=12)

    planned, _ = python("-m", "hf_sched", "plan", "run.yaml", cwd=tmp_path)
    assert str(schedule) in " ".join(planned.split())
    # The script does not import hf_sched, and has its own folder, like an entry point.
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "elsewhere" / "script.py"
    script.write_text(SCRIPT.replace("MODEL", repr(str(model_path))))
    printed, _ = python("-m", "hf_sched", "run", script, cwd=tmp_path)
    assert printed.splitlines()[-1] == str(schedule.curve(peak=0.01).tolist())
