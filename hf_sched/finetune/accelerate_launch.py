"""`accelerate launch` that leaves the explanation of a failure to the processes it started.

python -m hf_sched.finetune.accelerate_launch [FLAGS OF accelerate launch] -m MODULE ...
"""

from __future__ import annotations

import logging
import signal
import sys
from subprocess import CalledProcessError

from accelerate.commands.launch import main as launch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> None:
    """Launch; if a process fails or is interrupted, exit with its status instead of a traceback."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch()
    except KeyboardInterrupt:
        status = -signal.SIGINT
    except CalledProcessError as error:  # of a single process
        status = error.returncode
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        status = failure.exitcode
    else:
        return
    sys.exit(status if status > 0 else 128 - status)  # as a shell reports a signal


if __name__ == "__main__":
    main()
