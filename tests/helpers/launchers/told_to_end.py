"""Run a recipe whose last process gets SIGTERM in the middle of an optimizer step, counted from 1; for tests.

accelerate launch --config_file accelerate_configs/cpu_2proc.yaml tests/helpers/launchers/told_to_end.py STEP RECIPE ...
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback


class Tell(TrainerCallback):
    """Sends the signal to this process, if it is the last one."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """In the step that is about to begin, if it is the one."""
        if state.global_step + 1 == self.step and args.process_index == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the recipe named on the command line as `python RECIPE ARGS...` would."""
    step = int(sys.argv[1])
    train = Trainer.train

    def train_under_it(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        trainer.add_callback(Tell(step))
        return train(trainer, *args, **kwargs)

    Trainer.train = train_under_it
    del sys.argv[:2]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
