"""Writes rows to files of any format, and loads them as a recipe does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from trl import DatasetMixtureConfig, ScriptArguments

from hf_sched.finetune.data.columns import ColumnArguments
from hf_sched.finetune.data.conversion import TARGETS, Target
from hf_sched.finetune.data.load import LoadedRows, load_rows


def load_all(
    path: Path | str,
    kind: str = "sft",
    *,
    target: Target | None = None,
    streaming: bool = False,
    test_split_size: float | None = None,
    evaluating: bool = False,
    **columns: Any,
) -> LoadedRows:
    """Load the rows of a file or folder as a recipe of this kind does; `columns` are those of `ColumnArguments`."""
    requested = ScriptArguments(dataset_name=str(path), dataset_streaming=streaming)
    mixture = DatasetMixtureConfig(test_split_size=test_split_size)
    return load_rows(requested, mixture, target or TARGETS[kind], ColumnArguments(**columns), evaluating=evaluating)


def load(path: Path | str, kind: str = "sft", **given: Any) -> Any:
    """Load the training rows; see `load_all`."""
    return load_all(path, kind, **given).train


def write(path: Path, rows: list[Any]) -> Path:
    """Write rows in the format of the path's suffix; a line of JSONL may also be given as text."""
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines) if path.suffix == ".jsonl" else json.dumps(rows))
    return path
