"""What a check finds in a few arguments, and what the installed library makes of the same ones."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from hf_sched.check import CheckReport, Finding, check
from hf_sched.check.subject import classes_of
from hf_sched.plan.training_config import TrainingConfig

CPU = {"use_cpu": True, "bf16": False, "output_dir": "out"}


def report(kind: str = "sft", *, world_size: int | None = None, dataset_size: int | None = None, **given: Any):
    return check(TrainingConfig(kind, given), world_size=world_size, dataset_size=dataset_size)


def report_of_text(text: str, folder: Path, kind: str | None = None, **options: Any) -> CheckReport:
    path = folder / "config.yaml"
    path.write_text(text)
    return check(TrainingConfig.read(path, kind), **options)


def find(kind: str = "sft", *, world_size: int | None = None, dataset_size: int | None = None, **given: Any):
    """The one finding."""
    found = report(kind, world_size=world_size, dataset_size=dataset_size, **given).findings
    assert len(found) == 1, found
    return found[0]


def assert_error(finding: Finding, key: str, part: str) -> None:
    assert (finding.severity, finding.key) == ("error", key)
    assert part in finding.message, finding.message


def refused(kind: str = "sft", **given: Any) -> str | None:
    """What TRL's parser and the dataclasses say of them: an error, or which keys it drops; None: taken."""
    from trl import TrlParser

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stderr(StringIO()) as printed:
        warnings.simplefilter("ignore")
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump({**CPU, **given}))
        try:
            *_, left = TrlParser(classes_of(kind)).parse_args_and_config(
                ["--config", str(path)], return_remaining_strings=True
            )
        except (ValueError, TypeError, AttributeError, SystemExit) as error:
            return f"{error} {printed.getvalue()}"
    return f"dropped: {left}" if left else None
