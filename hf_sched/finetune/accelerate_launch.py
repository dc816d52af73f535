"""`accelerate launch` that leaves the explanation of a failure to the processes it started.

python -m hf_sched.finetune.accelerate_launch [FLAGS OF accelerate launch] -m MODULE ...
"""

from __future__ import annotations

import logging
import sys

from accelerate.commands.launch import main as launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    """Launch; if a process fails, exit with its status instead of a traceback."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)  # as a shell reports a signal


if __name__ == "__main__":
    main()
