"""Run a recipe whose last process receives SIGTERM within an optimizer step, counted from 1.

accelerate launch --config_file FILE tests/helpers/launchers/sigterm_in_last_rank.py STEP RECIPE ...
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback


class SendSigterm(TrainerCallback):
    """Sends the signal to this process if it is the last one."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step and args.process_index == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the recipe of the command line as `python RECIPE ARGS...` would."""
    step = int(sys.argv[1])
    train = Trainer.train

    def train_with_signal(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        trainer.add_callback(SendSigterm(step))
        return train(trainer, *args, **kwargs)

    Trainer.train = train_with_signal
    del sys.argv[:2]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
