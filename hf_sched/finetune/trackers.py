"""The experiment trackers of a recipe: which one by default, and the name of the run there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hf_sched._run_files import RUN
from hf_sched.finetune.provenance import read_provenance


def default_trackers() -> list[str]:
    """Return `report_to` of a run that does not name it: trackio, which needs no account, if it is installed."""
    return ["trackio"] if find_spec("trackio") else []


def name_of_run(args: Any) -> str:
    """Return the name of a run without `run_name`: its folder and its start, which a resume keeps."""
    folder = Path(args.output_dir)
    starts = [session["started"] for session in read_provenance(folder / RUN)]
    return " ".join([folder.name, *starts[:1]])
