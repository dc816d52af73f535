"""Which run wrote a checkpoint, and on how many processes.

A session is a start or a resume of a run: an entry of `run.json`, with its own id. Every checkpoint records the session
that wrote it in `trainer_state.json`. So a checkpoint that another run left in the folder, or that the run itself left
when it was resumed from an earlier one, is not mistaken for the run's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hf_sched._run_files import read_trainer_state


class RunIdentity(TrainerCallback, ExportableState):
    """Records the run, its session and the number of processes in each checkpoint."""

    def __init__(self, run_id: str = "", session_id: str = "", processes: int = 0) -> None:
        self.run_id = run_id
        """The id of the run's first session."""
        self.session_id = session_id
        """Empty if the checkpoint does not record it, like `run_id`."""
        self.processes = processes
        """0 if the checkpoint does not record it."""

    @classmethod
    def of(cls, checkpoint: Path) -> RunIdentity:
        """Read the identity that a checkpoint records.

        Raises:
            OSError: The checkpoint has no `trainer_state.json`.
            ValueError: Its `trainer_state.json` is cut off.
        """
        states = read_trainer_state(checkpoint / "trainer_state.json").get("stateful_callbacks") or {}
        return cls(**states.get(cls.__name__, {}).get("args", {}))

    def state(self) -> dict[str, Any]:
        return {"args": dict(vars(self)), "attributes": {}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The Trainer updates the entry when it saves, and fails if a checkpoint that it resumed has none.
        state.stateful_callbacks[type(self).__name__] = self.state()


def is_own(checkpoint: Path, sessions: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a checkpoint is part of the run with these sessions; every one is if no session is recorded."""
    if not sessions or any(checkpoint.resolve() == Path(one["checkpoint"] or "/").resolve() for one in sessions):
        return True
    state, written_in = read_trainer_state(checkpoint / "trainer_state.json"), RunIdentity.of(checkpoint).session_id
    ends = [*(session["step"] for session in sessions[1:]), state["global_step"]]
    return any(
        session.get("id") == written_in and state["global_step"] <= end
        for session, end in zip(sessions, ends, strict=True)
    )
