"""Runs any command with the schedules known in every Python process under it: `hf-sched run trl sft ...`.

The command replaces this process, so signals and the exit status are its own. It only receives two environment
variables: PYTHONPATH, which starts with a folder that has a `sitecustomize` (`site/`), and HF_SCHED_RUN, which holds
JSON for that module.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from hf_sched.schedules.validation import ArgumentError

SITE = Path(__file__).parent / "site"


class CommandNotStarted(Exception):
    """The command could not be started; `status` is the exit status that a shell would give."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def environment(modules: Sequence[str] = (), base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which Python processes know the schedules.

    Args:
        modules: Modules that register schedules, by name or as paths of Python files. They are imported right after
            transformers or diffusers.
        base: The environment to extend; None means that of this process.

    Raises:
        ArgumentError: A module's name is not valid, or its file does not exist.
    """
    env = dict(os.environ if base is None else base)
    outer = json.loads(env.get("HF_SCHED_RUN", "{}"))  # of an `hf-sched run` around this one
    names, lend = list(outer.get("import", [])), dict(outer.get("lend", {}))
    wrapt = find_spec("wrapt")
    if wrapt is not None and wrapt.origin is not None:
        lend["wrapt"] = str(Path(wrapt.origin).parents[1])
    for module in modules:
        name, folder = _name_and_folder(module)
        names += [name] if name not in names else []
        lend |= {name.partition(".")[0]: str(folder)} if folder else {}
    paths = env["PYTHONPATH"].split(os.pathsep) if env.get("PYTHONPATH") else []
    env["PYTHONPATH"] = os.pathsep.join([str(SITE), *(path for path in paths if path != str(SITE))])
    env["HF_SCHED_RUN"] = json.dumps({"import": names, "lend": lend})
    return env


def _name_and_folder(module: str) -> tuple[str, Path | None]:
    """A module's name, and its folder if it is a file or in the working directory."""
    name, folder = module, Path.cwd()
    if module.endswith(".py"):
        file = Path(module).absolute()
        if not file.is_file():
            raise ArgumentError("--import", "a module or an existing Python file", module)
        name, folder = file.stem, file.parent
    if not all(part.isidentifier() for part in name.split(".")):
        raise ArgumentError("--import", "a module (`my_schedules`) or a Python file (`my_schedules.py`)", module)
    top = folder / name.partition(".")[0]
    return name, folder if top.with_suffix(".py").is_file() or top.is_dir() else None


def start(command: Sequence[str], modules: Sequence[str] = ()) -> NoReturn:
    """Replace this process by a command under `environment(modules)`; does not return.

    `-m MODULE` and `SCRIPT.py` run in this Python, with the options that it was started with.

    Raises:
        CommandNotStarted: The command does not exist, or cannot be executed.
        ArgumentError: A module's name is not valid, or its file does not exist.
    """
    env = environment(modules)
    if command[0] == "-m" or command[0].endswith(".py"):
        options = sys.orig_argv[1:]  # `python -u -m hf_sched run ...`, as launchers start modules
        options = options[: options.index("-m")] if "-m" in options[: -len(command)] else []
        command = [sys.executable, *options, *command]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        _run_as_child(command, env)
    # Python ignores these signals, and a program inherits ignored signals from the one that it replaces.
    ignored = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in ("SIGPIPE", "SIGXFSZ")}
    try:
        os.execvpe(command[0], list(command), env)
    except OSError as error:
        for name, handler in ignored.items():
            signal.signal(getattr(signal, name), handler)
        raise _not_started(command[0], error) from None


def _run_as_child(command: Sequence[str], env: dict[str, str]) -> NoReturn:
    """Wait for the command and exit with its status, for Windows, where processes cannot be replaced."""
    found = shutil.which(command[0])
    if found is None:
        raise _not_started(command[0], FileNotFoundError())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child too, which decides
    sys.exit(subprocess.run([found, *command[1:]], env=env, check=False).returncode)


def _not_started(program: str, error: OSError) -> CommandNotStarted:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return CommandNotStarted(f"{program}: cannot be executed: {error.strerror}", 126)
    if os.sep in program:
        return CommandNotStarted(f"{program}: no such file", 127)
    same_folder = Path(sys.executable).parent / program
    hint = (
        f"; it is installed next to hf-sched, so activate that environment, or write {same_folder}"
        if same_folder.is_file()
        else ""
    )
    return CommandNotStarted(f"{program}: command not found on PATH{hint}", 127)
