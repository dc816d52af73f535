"""`hf-sched run`: the names in every process below, and nothing else changed for any of them."""

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

import pytest

from hf_sched.integrations.launcher import SITE, environment

ROOT = Path(__file__).parents[3]
RUN = [sys.executable, "-m", "hf_sched", "run"]
MODULE = [sys.executable, "-m", "hf_sched.integrations.launcher"]
# Of a process that finds this hf_sched as if it were installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
posix = pytest.mark.skipif(os.name == "nt", reason="signals and exec are POSIX")


def run(*words: object, cwd: Path = ROOT, ok: bool | None = True, launch: list[str] = RUN, **env: str) -> str:
    """What a command under `hf-sched run` writes; on stdout if it succeeds, else on stderr."""
    done = subprocess.run(
        [*launch, *map(str, words)],
        cwd=cwd,
        env={**ENVIRONMENT, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ok is None or (done.returncode == 0) == ok, done.stdout + done.stderr
    return (done.stdout if ok else done.stderr).strip()


def script(folder: Path, code: str, name: str = "script.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


SCHEDULES = """
import hf_sched

@hf_sched.register("flat_then_down")
def flat_then_down():
    \"\"\"Hold, then a line.\"\"\"
    return [hf_sched.hold(), hf_sched.decay("50%")]
"""


def test_the_names_are_known_in_a_script_its_children_and_theirs(tmp_path):
    # A script in a folder of its own, like an entry point: what it imports is not looked for in the working directory.
    script(tmp_path, SCHEDULES, "mine.py")
    path = script(
        tmp_path / "bin",
        """
        import multiprocessing, subprocess, sys

        def names(_=None):
            from transformers import SchedulerType
            return [name for name in ("cosine_floor", "flat_then_down") if name in SchedulerType._value2member_map_]

        if __name__ == "__main__" and len(sys.argv) == 1:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print("spawned", *pool.map(names, [0])[0])
            subprocess.run([sys.executable, __file__, "again"], check=True)
        elif __name__ == "__main__":
            import transformers, transformers.optimization
            print("here", *names(), type(transformers.__spec__.loader).__name__)
            print("table", *(name in transformers.optimization.TYPE_TO_SCHEDULER_FUNCTION for name in names()))
        """,
    )
    assert run("--import", "mine", sys.executable, "-u", path, cwd=tmp_path).splitlines() == [
        "spawned cosine_floor flat_then_down",
        "here cosine_floor flat_then_down SourceFileLoader",
        "table True True",
    ]


def test_a_file_can_be_imported_from_anywhere(tmp_path):
    path = script(tmp_path / "there", SCHEDULES, "mine.py")
    code = "import transformers, hf_sched; print('flat_then_down' in hf_sched.available())"
    assert run("--import", path, sys.executable, "-c", code) == "True"


def test_what_cannot_be_imported_is_told_of(tmp_path):
    code = "import transformers"
    message = run("--import", "mime", sys.executable, "-c", code, cwd=tmp_path, ok=False)
    assert "hf-sched run: `--import mime` failed: ModuleNotFoundError: No module named 'mime'" in message
    # A process that never imports transformers never comes to it.
    assert run("--import", "mime", sys.executable, "-c", "print(1)", cwd=tmp_path) == "1"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gone.py", "`--import` must be a module or a Python file, received 'gone.py': there is no such file"),
        ("my-schedules", "`--import` must be a module (`my_schedules`) or a Python file (`my_schedules.py`), received"),
    ],
)
def test_what_is_no_module_is_refused(tmp_path, given, message):
    for launch in (RUN, MODULE):
        done = subprocess.run(
            [*launch, "--import", given, sys.executable, "-c", ""],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_process_that_imports_no_host_imports_nothing_of_ours():
    code = "import importlib.util, sys; importlib.util.find_spec('transformers'); print(*sorted(sys.modules))"
    plain = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    ours = set(run(sys.executable, "-c", code).split())
    assert ours - set(plain.stdout.split()) <= {"sitecustomize"}
    assert "numpy" not in ours and "hf_sched" not in ours


def test_another_sitecustomize_and_the_usercustomize_run_as_before(tmp_path):
    script(tmp_path / "theirs", "where = 'theirs'", "sitecustomize.py")
    script(tmp_path / "theirs", "where = 'user'", "usercustomize.py")
    script(tmp_path / "behind", "raise SystemExit('only the first one runs')", "sitecustomize.py")
    path = os.pathsep.join(str(folder) for folder in (tmp_path / "theirs", tmp_path / "behind", ROOT))
    code = """if True:
        import os, sys, sitecustomize, usercustomize, transformers
        print(sitecustomize.where, usercustomize.where, "hf_sched" in sys.modules)
        print(os.environ["PYTHONPATH"])
    """
    there, kept = run(sys.executable, "-c", code, PYTHONPATH=path).splitlines()
    assert there == "theirs user True"
    assert kept == os.pathsep.join([str(SITE), path])


def test_an_error_in_another_sitecustomize_is_told_as_before(tmp_path):
    script(tmp_path, "import nowhere", "sitecustomize.py")
    command = [sys.executable, "-c", "import sys; print('sitecustomize' in sys.modules)"]
    env = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    plain = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    ours = subprocess.run(command, env=environment(base=env), capture_output=True, text=True, timeout=60, check=False)
    assert "No module named 'nowhere'" in plain.stderr
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)


def test_an_empty_path_does_not_become_the_working_directory_and_nothing_doubles():
    assert environment(base={"PYTHONPATH": ""})["PYTHONPATH"] == str(SITE)
    once = environment(["mine"], base={"PYTHONPATH": os.pathsep.join(["/a", "/b"])})
    assert once["PYTHONPATH"] == os.pathsep.join([str(SITE), "/a", "/b"])
    assert environment(["mine"], base=once) == once
    assert json.loads(environment(["yours"], base=once)["HF_SCHED_RUN"])["import"] == ["mine", "yours"]


@posix
def test_an_environment_without_hf_sched_borrows_it_and_one_that_cannot_goes_on(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # Not the real one: this is about who is imported before it.
    script(packages, "import sys; print(*(name in sys.modules for name in ('hf_sched', 'wrapt')))", "transformers.py")
    code = "import transformers, diffusers"
    script(packages, "", "diffusers.py")
    done = subprocess.run([*RUN, python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False False"
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"hf-sched run: {python} cannot import hf_sched, so its schedules are unknown there")
    assert "No module named 'numpy'" in message
    import numpy

    for part in ("numpy", "numpy.libs"):
        (packages / part).symlink_to(Path(numpy.__file__).parents[1] / part)
    done = subprocess.run([*RUN, python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.strip(), done.stderr) == ("True True", "")


def test_a_transformers_that_does_not_fit_breaks_no_process():
    # What hf_sched extends is taken away before it looks, as a later transformers might come without.
    code = """if True:
        from wrapt import register_post_import_hook
        def without_table(module):
            del module.TYPE_TO_SCHEDULER_FUNCTION
        def without_check(module):
            del module.TrainingArguments.__post_init__
        register_post_import_hook(without_table, "transformers.optimization")
        register_post_import_hook(without_check, "transformers.training_args")
        from transformers import SchedulerType, optimization, training_args
        print(SchedulerType("linear").value, "cosine_floor" in SchedulerType._value2member_map_)
    """
    command = [*RUN, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "linear False"), done.stderr
    assert "hf-sched run: hf_sched supports transformers" in done.stderr
    assert "`optimization.TYPE_TO_SCHEDULER_FUNCTION`" in done.stderr
    assert done.stderr.count("it registered nothing") == 1, done.stderr


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reaches_the_command(number):
    code = """if True:
        import os, signal, sys
        def on_signal(number, frame):
            print(number, flush=True)
            sys.exit(40 + number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, on_signal)
        print(os.getpid(), flush=True)
        signal.pause()
    """
    command = [*RUN, sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().strip() == str(process.pid)  # it is the command now
        process.send_signal(number)
        assert process.stdout.readline().strip() == str(int(number))
        assert process.wait(60) == 40 + number


@posix
@pytest.mark.parametrize(("code", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM)])
def test_the_exit_status_is_the_commands(code, status):
    assert subprocess.run([*RUN, "sh", "-c", code], cwd=ROOT, env=ENVIRONMENT, timeout=60).returncode == status


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_no_signal_is_ignored_that_was_not():
    command = ["grep", "SigIgn", "/proc/self/status"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert run(*command) == plain


@posix
def test_a_command_that_cannot_be_started(tmp_path):
    def start(*words: str, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            [*RUN, *words], cwd=ROOT, env={**ENVIRONMENT, **env}, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr.strip()

    assert start("no-such-command", "--help") == (127, "hf-sched: no-such-command: command not found on PATH")
    assert start("./no/such") == (127, "hf-sched: ./no/such: command no such file")
    path = script(tmp_path, "#!/bin/sh\n", "plain.sh")
    assert start(str(path)) == (126, f"hf-sched: {path}: cannot be executed: Permission denied")
    beside = Path(sys.executable).parent / "accelerate"
    assert start("accelerate", "env", PATH=str(tmp_path)) == (
        127,
        f"hf-sched: accelerate: command not found on PATH: it is installed beside hf-sched, so activate that "
        f"environment, or write {beside}",
    )


@posix
def test_the_commands_own_words_are_left_alone():
    words = ["--help", "--import", "a", "-m", "--", "", "x y", "--json"]
    assert run("printf", "<%s>", *words) == "".join(f"<{word}>" for word in words)
    assert run("--", "printf", "<%s>", *words) == "".join(f"<{word}>" for word in words)
    ours = re.sub(r"\x1b\[[\d;]*m", "", run("--help"))
    assert "Run any command so that every Python process under it knows our schedules" in ours


def test_as_a_module_it_is_python_itself(tmp_path):
    script(tmp_path, SCHEDULES, "mine.py")
    code = """
    import os, sys
    import transformers
    known = "mine" in sys.modules
    print(sys.argv[1:], __name__, known, sys.flags.utf8_mode, sys.flags.optimize, sys.path[0] == os.environ["FIRST"])
    """
    script(tmp_path / "package", code, "__init__.py").rename(tmp_path / "package" / "__main__.py")
    path = script(tmp_path / "elsewhere", code)
    launch = [
        sys.executable,
        "-O",
        "-X",
        "utf8",
        "-W",
        "ignore",
        "-m",
        "hf_sched.integrations.launcher",
        "--import",
        "mine",
    ]
    words = ["-m", "--import", "x"]
    shown = f"{words} __main__ True 1 1 True"
    ask = {"cwd": tmp_path, "launch": launch}
    assert run("-m", "package", *words, **ask, FIRST=str(tmp_path)) == shown
    assert run(path, *words, **ask, FIRST=str(path.parent)) == shown
    refused = run("-c", "", launch=[sys.executable, "-E", "-m", "hf_sched.integrations.launcher"], ok=False)
    assert (
        "hf_sched.integrations.launcher: Python's options -I, -E and -S keep it from reading PYTHONPATH: leave them out"
        in refused
    )
    assert run(launch=MODULE, ok=None).count("usage") <= 1


@pytest.mark.slow
def test_an_installed_wheel_has_all_of_it(tmp_path):
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "hf_sched", tmp_path / "hf_sched", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, tmp_path], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "to", wheel], check=True)
    code = "import transformers, sys; print(sys.modules['hf_sched'].__file__)"
    shown = run(sys.executable, "-c", code, cwd=tmp_path / "to", PYTHONPATH=str(tmp_path / "to"))
    assert Path(shown).parents[1] == tmp_path / "to"
