"""Runs any command with the schedules known in every Python process under it: `hf-sched run trl sft ...`.

The command replaces this process. It receives two environment variables: PYTHONPATH, which starts with a folder that
has a `sitecustomize` (`site/`), and HF_SCHED_RUN, which holds JSON for that module.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import NoReturn

from hf_sched.schedules.validation import ArgumentError

SITE = Path(__file__).parent / "site"


def environment(modules: Sequence[str] = (), base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Extend an environment so that Python processes know the schedules.

    Args:
        modules: Modules that register schedules, by name or as paths of Python files. They are imported right after
            transformers or diffusers.
        base: The environment to extend.

    Raises:
        ArgumentError: A module's name is not valid, or its file does not exist.
    """
    outer = json.loads(base.get("HF_SCHED_RUN", "{}"))  # of an `hf-sched run` around this one
    names, lend = list(outer.get("import", [])), dict(outer.get("lend", {}))
    lend["wrapt"] = str(distribution("wrapt").locate_file(""))
    for module in modules:
        name, folder = _name_and_folder(module)
        names += [name] if name not in names else []
        lend |= {name.partition(".")[0]: str(folder)} if folder else {}
    paths = [path for path in base.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", str(SITE))]
    return {
        **base,
        "PYTHONPATH": os.pathsep.join([str(SITE), *paths]),
        "HF_SCHED_RUN": json.dumps({"import": names, "lend": lend}),
    }


def _name_and_folder(module: str) -> tuple[str, Path | None]:
    """A module's name, and its folder if it is a file or in the working directory."""
    file = Path(module).absolute()
    is_file = module.endswith(".py")
    name, folder = (file.stem, file.parent) if is_file else (module, Path.cwd())
    if not all(part.isidentifier() for part in name.split(".")) or (is_file and not file.is_file()):
        allowed = "a module (`my_schedules`) or an existing Python file (`my_schedules.py`)"
        raise ArgumentError("--import", allowed, module)
    top = folder / name.partition(".")[0]
    return name, folder if top.with_suffix(".py").is_file() or top.is_dir() else None


def start(command: Sequence[str], modules: Sequence[str] = ()) -> NoReturn:
    """Replace this process by a command under `environment(modules)`; does not return.

    `-m MODULE` and `SCRIPT.py` run in this Python, with the options that it was started with.

    Raises:
        OSError: The command does not exist, or cannot be executed.
        ArgumentError: A module's name is not valid, or its file does not exist.
    """
    env = environment(modules)
    if command[0] == "-m" or command[0].endswith(".py"):
        options = sys.orig_argv[1:]  # `python -u -m hf_sched run ...`, as launchers start modules
        options = options[: options.index("-m")] if "-m" in options[: -len(command)] else []
        command = [sys.executable, *options, *command]
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these signals, and a program inherits ignored signals from the one that it replaces.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvpe(command[0], list(command), env)
