"""Runs any command so that every Python process under it knows our schedules: `hf-sched run trl sft ...`.

The command replaces this process, so that signals and exit status are its own. All it gets is an environment: a folder
with a `sitecustomize` in front of PYTHONPATH (`hf_sched/run/site`), and HF_SCHED_RUN, JSON text for that one.
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

SITE = Path(__file__).parent / "site"


class NotStarted(Exception):
    """The command could not be started; `status` is what a shell would exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def environment(modules: Sequence[str] = (), base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment under which Python processes know our schedules.

    Args:
        modules: What to import there as soon as transformers is: modules that register schedules, by name or as paths
            of Python files. They may lie in the working directory.
        base: The environment to build on; None is that of this process.

    Raises:
        ValueError: A module is no such name, or its file is not there.
    """
    env = dict(os.environ if base is None else base)
    before = json.loads(env.get("HF_SCHED_RUN", "{}"))  # of an `hf-sched run` around this one
    names, lend = list(before.get("import", [])), dict(before.get("lend", {}))
    wrapt = find_spec("wrapt")
    if wrapt is not None and wrapt.origin is not None:
        lend["wrapt"] = str(Path(wrapt.origin).parents[1])
    for module in modules:
        name, folder = _name_and_folder(module)
        names += [name] if name not in names else []
        lend |= {name.partition(".")[0]: str(folder)} if folder else {}
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if env.get("PYTHONPATH")]
    env["PYTHONPATH"] = os.pathsep.join([str(SITE), *(path for path in paths if path != str(SITE))])
    env["HF_SCHED_RUN"] = json.dumps({"import": names, "lend": lend})
    return env


def _name_and_folder(module: str) -> tuple[str, Path | None]:
    """A module's name, and the folder that it is found in where Python does not find it by itself."""
    if module.endswith(".py"):
        file = Path(module).absolute()
        if not file.is_file():
            raise ValueError(
                f"`--import` must be a module or a Python file, received {module!r}: there is no such file"
            )
        name, folder = file.stem, file.parent
    else:
        name, folder = module, Path.cwd()
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(
            f"`--import` must be a module (`my_schedules`) or a Python file (`my_schedules.py`), received {module!r}"
        )
    top = folder / name.partition(".")[0]
    return name, folder if top.with_suffix(".py").is_file() or top.is_dir() else None


def start(command: Sequence[str], modules: Sequence[str] = ()) -> NoReturn:
    """Replace this process by a command under `environment(modules)`; does not return.

    Raises:
        NotStarted: There is no such command, or it cannot be executed.
        ValueError: A module is no such thing.
    """
    env = environment(modules)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":
        _run_as_child(command, env)
    # Python ignores these, and what is ignored stays so in the program that takes its place.
    ignored = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in ("SIGPIPE", "SIGXFSZ")}
    try:
        os.execvpe(command[0], list(command), env)
    except OSError as error:
        for name, handler in ignored.items():
            signal.signal(getattr(signal, name), handler)
        raise _not_started(command[0], error) from None


def _run_as_child(command: Sequence[str], env: dict[str, str]) -> NoReturn:
    """For Windows, where no process can take the place of another: wait for it, and exit as it did."""
    found = shutil.which(command[0])
    if found is None:
        raise _not_started(command[0], FileNotFoundError())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child as well, and is its own business
    sys.exit(subprocess.run([found, *command[1:]], env=env, check=False).returncode)


def _not_started(program: str, error: OSError) -> NotStarted:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        beside = Path(sys.executable).parent / program
        advice = (
            f": it is installed beside hf-sched, so activate that environment, or write {beside}"
            if os.sep not in program and beside.is_file()
            else ""
        )
        where = "no such file" if os.sep in program else "not found on PATH"
        return NotStarted(f"{program}: command {where}{advice}", 127)
    return NotStarted(f"{program}: cannot be executed: {error.strerror}", 126)
