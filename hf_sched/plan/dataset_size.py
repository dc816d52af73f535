"""The number of training samples, if it is known before the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sched.plan.training_config import TrainingConfig
from hf_sched.schedules.validation import OneOf, Whole

# File types, and the builders of `datasets` that read them.
_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


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
    with _quiet_datasets() as datasets:
        return _count(config, str(name), datasets)


def _count(config: TrainingConfig, name: str, datasets: Any) -> DatasetSize:
    split, subset = str(config.get("dataset_train_split") or "train"), config.get("dataset_config")
    path = Path(name).expanduser()
    if path.suffix in _BUILDERS and path.is_file():
        found = datasets.load_dataset(_BUILDERS[path.suffix], data_files={split: str(path)})
        sizes = {key: len(rows) for key, rows in found.items()}
    elif path.is_dir():
        sizes = {key: len(rows) for key, rows in datasets.load_dataset(str(path), name=subset).items()}
    elif path.suffix in _BUILDERS or name.count("/") > 1 or name.startswith((".", "/", "~")):
        return DatasetSize(None, f"{name!r} does not exist")
    else:
        try:
            splits = datasets.load_dataset_builder(name, name=subset).info.splits or {}
        except Exception:  # an incomplete cache raises many types; in all cases the size is unknown
            splits = {}
        sizes = {key: info.num_examples for key, info in splits.items()}
    if not sizes:
        return DatasetSize(None, f"{name!r} is not in the cache of `datasets`")
    split = OneOf(tuple(sizes))("dataset_train_split", split)
    return DatasetSize(sizes[split], f"counted in split {split!r} of {name}")


@contextmanager
def _quiet_datasets() -> Iterator[Any]:
    """The library `datasets`, temporarily offline and without progress bars."""
    import datasets

    logging = datasets.utils.logging
    before = datasets.config.HF_HUB_OFFLINE, logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield datasets
    finally:
        datasets.config.HF_HUB_OFFLINE = before[0]
        logging.set_verbosity(before[1])
        if not before[2]:
            datasets.enable_progress_bars()
