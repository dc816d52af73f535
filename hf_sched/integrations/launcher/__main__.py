"""`python -m hf_sched.run ARGUMENTS` is `python ARGUMENTS` under `hf-sched run`, for launchers that start modules.

    accelerate launch -m hf_sched.run -m trl.scripts.sft ...
    torchrun --nproc_per_node 2 -m hf_sched.run train.py ...

`--import MODULE`, any number of times, comes first.
"""

from __future__ import annotations

import sys

from hf_sched.integrations.launcher import NotStarted, start

USAGE = "usage: python -m hf_sched.run [--import MODULE]... (-m MODULE | SCRIPT) [ARGUMENTS...]"


def main() -> None:
    """Run Python again, in place of this process, with the same options and under `hf-sched run`."""
    modules, arguments = _take_imports(sys.argv[1:])
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    try:
        if sys.flags.ignore_environment or sys.flags.no_site:
            raise ValueError("Python's options -I, -E and -S keep it from reading PYTHONPATH: leave them out")
        start([sys.executable, *_options_of_python(), *arguments], modules)
    except (NotStarted, ValueError) as error:
        print(f"hf_sched.integrations.launcher: {error}", file=sys.stderr)
        sys.exit(error.status if isinstance(error, NotStarted) else 2)


def _take_imports(arguments: list[str]) -> tuple[list[str], list[str]]:
    modules = []
    while arguments and arguments[0].partition("=")[0] == "--import":
        _, separator, module = arguments[0].partition("=")
        taken = 1 if separator else 2
        if len(arguments) < taken:
            break
        modules.append(module if separator else arguments[1])
        arguments = arguments[taken:]
    return modules, arguments


def _options_of_python() -> list[str]:
    """What stood between `python` and `-m hf_sched.integrations.launcher`, such as -u."""
    before = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    return before[:-1] if before[-1:] == ["-mhf_sched.run"] else before[:-2]


main()
