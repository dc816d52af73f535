"""`hf-sched run`: the names are known in every process under it, and nothing else changes for any of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from hf_sched.integrations.launcher import SITE, environment

ROOT = Path(__file__).parents[3]
# A process finds this hf_sched as if it were installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PYTHON = [sys.executable, "-c"]
SCHEDULES = """
import hf_sched

@hf_sched.register("flat_then_down")
def flat_then_down():
    return [hf_sched.hold(), hf_sched.decay("50%")]
"""


def launch(*words: object, cwd: Path = ROOT, options: tuple[str, ...] = (), **env: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command under `hf-sched run`."""
    command = [sys.executable, *options, "-m", "hf_sched", "run", *map(str, words)]
    env = {**ENVIRONMENT, **env}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def run(*words: object, **given: object) -> str:
    status, out, err = launch(*words, **given)
    assert status == 0, out + err
    return out


def script(folder: Path, code: str, name: str = "script.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


def test_names_are_known_in_a_script_and_its_children(tmp_path):
    # The script has its own folder, like an entry point, so it does not find modules of the working directory.
    script(tmp_path, SCHEDULES, "mine.py")
    code = """
    import multiprocessing

    def known(_):
        import transformers
        from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION
        names = [name for name in ("cosine_floor", "flat_then_down") if name in TYPE_TO_SCHEDULER_FUNCTION]
        return *names, type(transformers.__spec__.loader).__name__

    if __name__ == "__main__":
        print(*known(0))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(*pool.map(known, [0])[0])
    """
    shown = run("--import", "mine", sys.executable, "-u", script(tmp_path / "bin", code), cwd=tmp_path)
    assert shown.splitlines() == ["cosine_floor flat_then_down SourceFileLoader"] * 2


def test_scripts_and_modules_run_in_this_python_with_its_options(tmp_path):
    path = script(tmp_path / "there", SCHEDULES, "mine.py")
    code = """
    import os, sys
    import transformers
    known = "mine" in sys.modules
    print(sys.argv[1:], __name__, known, sys.flags.utf8_mode, sys.flags.optimize, sys.path[0] == os.environ["FIRST"])
    """
    module = script(tmp_path / "package", code, "__main__.py")
    words = ["-m", "--import", "x"]
    given = {"cwd": tmp_path, "options": ("-O", "-X", "utf8", "-W", "ignore")}
    for command, first in (("-m", "package"), tmp_path), ((module,), module.parent):
        shown = run("--import", path, *command, *words, FIRST=str(first), **given)
        assert shown == f"{words} __main__ True 1 1 True"


def test_missing_module_fails_only_where_transformers_is_imported(tmp_path):
    status, _, message = launch("--import", "mime", *PYTHON, "import transformers", cwd=tmp_path)
    assert status == 1
    assert "hf-sched run: `--import mime` failed: ModuleNotFoundError: No module named 'mime'" in message
    assert run("--import", "mime", *PYTHON, "print(1)", cwd=tmp_path) == "1"


@pytest.mark.parametrize("given", ["gone.py", "my-schedules"])
def test_invalid_module_is_rejected_before_the_command_starts(tmp_path, given):
    status, out, message = launch("--import", given, "echo", "started", cwd=tmp_path)
    assert (status, out) == (2, "")
    assert re.search(rf"`--import` must be a module .*, received '{given}'", message)


def test_process_without_transformers_imports_nothing_of_hf_sched():
    code = "import importlib.util, sys; importlib.util.find_spec('transformers'); print(*sorted(sys.modules))"
    plain = subprocess.run([*PYTHON, code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert set(run(*PYTHON, code).split()) - set(plain.stdout.split()) <= {"sitecustomize"}


def test_hidden_sitecustomize_and_usercustomize_still_run(tmp_path):
    script(tmp_path / "theirs", "where = 'theirs'", "sitecustomize.py")
    script(tmp_path / "theirs", "where = 'user'", "usercustomize.py")
    path = os.pathsep.join(map(str, (tmp_path / "theirs", ROOT)))
    code = """if True:
        import os, sys, sitecustomize, usercustomize, transformers
        print(sitecustomize.where, usercustomize.where, "hf_sched" in sys.modules, os.environ["PYTHONPATH"])
    """
    assert run(*PYTHON, code, PYTHONPATH=path) == f"theirs user True {os.pathsep.join([str(SITE), path])}"


def test_nested_environments_join_their_modules():
    once = environment(["mine"], base={"PYTHONPATH": ""})
    assert once["PYTHONPATH"] == str(SITE)
    assert environment(["mine"], base=once) == once
    assert json.loads(environment(["yours"], base=once)["HF_SCHED_RUN"])["import"] == ["mine", "yours"]


def test_environment_without_hf_sched_borrows_it_or_continues_without(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    command = [tmp_path / "venv" / "bin" / "python", "-c", "import transformers, diffusers"]
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # Not the real one: this test is about what is imported before it.
    script(packages, "import sys; print(*(name in sys.modules for name in ('hf_sched', 'wrapt')))", "transformers.py")
    script(packages, "", "diffusers.py")
    status, out, message = launch(*command, PYTHONPATH="")
    assert (status, out) == (0, "False False")
    assert message.startswith(f"hf-sched run: {command[0]} cannot import hf_sched, so its schedules are unknown there")
    assert "No module named 'numpy'" in message and "\n" not in message
    for part in ("numpy", "numpy.libs"):
        (packages / part).symlink_to(Path(np.__file__).parents[1] / part)
    assert launch(*command, PYTHONPATH="") == (0, "True True", "")


def test_signals_reach_the_command():
    code = """if True:
        import os, signal, sys
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(40 + number))
        print(os.getpid(), flush=True)
        signal.pause()
    """
    command = [sys.executable, "-m", "hf_sched", "run", *PYTHON, code]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == str(process.pid)  # the command has replaced hf-sched
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 40 + signal.SIGTERM


def test_exit_status_and_ignored_signals_are_the_commands():
    for code, status in ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM):
        assert launch("sh", "-c", code)[0] == status
    command = ["grep", "SigIgn", "/proc/self/status"]
    assert run(*command) == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_command_that_cannot_start_has_the_status_of_a_shell(tmp_path):
    assert launch("no-such-command") == (127, "", "hf-sched: no-such-command: No such file or directory")
    path = script(tmp_path, "#!/bin/sh\n", "plain.sh")
    assert launch(path) == (126, "", f"hf-sched: {path}: Permission denied")


def test_arguments_of_the_command_are_passed_unchanged():
    words = ["--help", "--import", "a", "-m", "--", "", "x y", "--json"]
    for separator in [], ["--"]:
        assert run(*separator, "printf", "<%s>", *words) == "".join(f"<{word}>" for word in words)


@pytest.mark.slow
def test_installed_wheel_has_the_launcher(tmp_path):
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "hf_sched", tmp_path / "hf_sched", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, tmp_path], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "to", wheel], check=True)
    code = "import transformers, sys; print(sys.modules['hf_sched'].__file__)"
    shown = run(*PYTHON, code, cwd=tmp_path / "to", PYTHONPATH=str(tmp_path / "to"))
    assert Path(shown).parents[1] == tmp_path / "to"
