"""How the arguments of a resumed run differ from those that its checkpoint was trained with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_sched._run_files import RUN
from hf_sched.finetune.checkpoints.identity import RunIdentity
from hf_sched.finetune.provenance import hide, read_provenance

_HARMLESS_PREFIXES = ("logging_", "log_", "save_", "eval", "hub_", "push_to_hub", "report_to", "dataloader_", "anneal_")
_HARMLESS = {
    *("config", "output_dir", "run_name", "resume_from_checkpoint", "overwrite", "dry_run", "disable_tqdm"),
    *("enable_jit_checkpoint", "load_best_model_at_end", "metric_for_best_model", "greater_is_better", "ddp_timeout"),
    "per_device_eval_batch_size",
}


def recorded_session(checkpoint: Path) -> Mapping[str, Any] | None:
    """Return the entry of `run.json` for the session that wrote a checkpoint; None if it is not recorded."""
    written_in = RunIdentity.of(checkpoint).session_id
    sessions = read_provenance(checkpoint.parent / RUN)
    return next((session for session in sessions if written_in and session.get("id") == written_in), None)


def is_harmless(name: str) -> bool:
    """Return whether an argument changes neither the weights nor the order of the data."""
    return name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)


def differences(
    session: Mapping[str, Any],
    given: Mapping[str, Any],
    processes: int | None = None,
    only: Collection[str] | None = None,
) -> list[str]:
    """Return what differs between a session and a run, as texts: "`seed` 0 -> 7", "processes 2 -> 1".

    Args:
        session: The entry of `run.json`.
        given: The run's arguments as they were written.
        processes: The run's number of processes; None to leave them out.
        only: The arguments to compare; by default all that affect what is trained.
    """
    before, now = dict(session.get("arguments") or {}), hide(given)
    found = []
    if processes is not None and session.get("processes") not in (None, processes):
        found.append(f"processes {session['processes']} -> {processes}")
    for name in dict.fromkeys([*before, *now]):
        is_compared = name in only if only else not is_harmless(name)
        old, new = (_comparable(name, arguments.get(name)) for arguments in (before, now))
        if is_compared and old != new:
            found.append(f"`{name}` {_show(old)} -> {_show(new)}")
    return found


def _comparable(name: str, value: Any) -> Any:
    """Return a value such that different ways to write it are equal: `1e-4` is text in YAML, a path may end in `/`."""
    if value is None:
        field = TrainingArguments.__dataclass_fields__.get(name)
        value = field.default if field and isinstance(field.default, (int, float, str)) else None
    if isinstance(value, dict):
        return {key: entry for key, entry in value.items() if key != "on_resume"} or None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return str(Path(value)) if "/" in value else value
    return list(value) if isinstance(value, tuple) else value


def _show(value: Any) -> str:
    return "(default)" if value is None else str(value)
