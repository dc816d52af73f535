"""The number of training samples, if it is known before the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import Number, OneOf, Whole

# File types, and the builders of `datasets` that read them.
BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class DatasetSize:
    """The number of samples and how it is known; None and the reason if it is unknown."""

    samples: int | None
    source: str
    streamed: bool = False


def find_dataset_size(config: TrainingConfig, given: int | None = None) -> DatasetSize:
    """The number given, else the size of the local file or folder `dataset_name`, or of a cached dataset of the Hub."""
    if config.get("dataset_streaming") or config.get("streaming"):
        return DatasetSize(None, "the dataset is streamed", streamed=True)
    if given is not None:
        return DatasetSize(Whole(1)("dataset_size", given), "as given")
    if config.get("packing"):
        return DatasetSize(None, "`packing` joins samples, and only the tokenizer knows how many remain")
    if config.get("datasets"):
        return DatasetSize(None, "`datasets` is a mixture")
    name = config.get("dataset_name")
    if not name or config.kind == "trainer":
        return DatasetSize(None, "the script prepares the dataset" if name else "`dataset_name` is not set")
    split = str(config.get("dataset_train_split") or "train")
    try:
        with _quiet_datasets() as datasets:
            sizes = _count(datasets, str(name), config.get("dataset_config"), split)
    except Exception as error:  # incomplete caches and damaged files raise many types
        return DatasetSize(None, f"{name!r} cannot be read ({' '.join(str(error).split())[:200]})")
    split = OneOf(tuple(sizes))("dataset_train_split", split)
    samples, source = sizes[split], f"counted in split {split!r} of {name}"
    if size := config.get("test_split_size"):
        size = Number(0, above_low=True)("test_split_size", size)
        held_out = math.ceil(samples * size) if size < 1 else int(size)  # as `train_test_split` counts
        samples, source = samples - held_out, f"{source}, without {held_out} for `test_split_size`"
    return DatasetSize(samples, source)


def _count(datasets: Any, name: str, subset: str | None, split: str) -> dict[str, int]:
    """The number of samples of each split."""
    path = Path(name).expanduser()
    if path.suffix in BUILDERS:
        files = datasets.load_dataset(BUILDERS[path.suffix], data_files={split: str(path)})
        return {split: len(files[split])}
    if path.is_dir():
        return {key: len(rows) for key, rows in datasets.load_dataset(str(path), name=subset).items()}
    return {key: info.num_examples for key, info in datasets.load_dataset_builder(name, subset).info.splits.items()}


@contextmanager
def _quiet_datasets() -> Iterator[Any]:
    """The library `datasets`, temporarily offline and without progress bars."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE, datasets.are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        datasets.config.HF_HUB_OFFLINE = before[0]
        if not before[1]:
            datasets.enable_progress_bars()
