"""The findings about a few arguments, and what the installed TRL does with the same arguments."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from hf_sched.check import CheckReport, Finding, check
from hf_sched.plan.training_config import TrainingConfig, classes_of

CPU = {"use_cpu": True, "bf16": False, "output_dir": "out"}


def report(
    kind: str = "sft",
    *,
    num_processes: int | None = None,
    dataset_size: int | None = None,
    extra: tuple[type, ...] = (),
    **given: Any,
) -> CheckReport:
    """The report about some arguments."""
    config = TrainingConfig(kind, given, extra=extra)
    return check(config, num_processes=num_processes, dataset_size=dataset_size, allow=())


def report_of_text(text: str, folder: Path, kind: str | None = "sft", **options: Any) -> CheckReport:
    """The report about a file with this text."""
    path = folder / "config.yaml"
    path.write_text(text)
    return check(TrainingConfig.read(path, kind), **options)


def find(kind: str = "sft", **given: Any) -> Finding:
    """The only finding about some arguments."""
    found = report(kind, **given).findings
    assert len(found) == 1, found
    return found[0]


def assert_error(finding: Finding, key: str, part: str) -> None:
    """Check that a finding is an error about a key, with this text."""
    assert (finding.severity, finding.key) == ("error", key), finding
    assert part in finding.message, finding.message


def rejection(kind: str = "sft", **given: Any) -> str | None:
    """Why TRL's parser and dataclasses reject some arguments, or which keys they drop; None if they accept them."""
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
