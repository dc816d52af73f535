"""How many samples a recipe trains on, as far as that can be known before the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_sched.plan.training_config import RunConfig
from hf_sched.schedules.validation import Whole, did_you_mean

# The files that recipes/data.py takes, and what `datasets` calls their form.
_LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class DatasetSize:
    """How many samples there are and how that is known; or None, and why it is not."""

    samples: int | None
    source: str
    streamed: bool = False


def find_dataset_size(config: RunConfig, given: int | None = None) -> DatasetSize:
    """The number given, else that of the local file or folder `dataset_name`, or of a data set that is in the cache.

    Raises:
        ValueError: The number is none, or the data set has no such split.
    """
    if config.get("dataset_streaming") or config.get("streaming"):
        return DatasetSize(None, "the dataset is streamed", streamed=True)
    if given is not None:
        return DatasetSize(Whole(1)("dataset_size", given), "as given")
    if config.get("packing"):
        return DatasetSize(None, "`packing` joins samples, and only the tokenizer can tell how many are left")
    if config.get("datasets"):
        return DatasetSize(None, "it is a mixture, `datasets`")
    name = config.get("dataset_name")
    if not name or config.kind == "trainer":
        return DatasetSize(None, "no `dataset_name` says which it is" if not name else "the script prepares it")
    return _count(config, str(name))


def _count(config: RunConfig, name: str) -> DatasetSize:
    split = str(config.get("dataset_train_split") or "train")
    subset = config.get("dataset_config")
    path = Path(name).expanduser()
    if path.suffix in _LOADERS and path.is_file():
        with _quietly() as datasets:
            rows = datasets.load_dataset(_LOADERS[path.suffix], data_files={split: str(path)}, split=split)
        return DatasetSize(len(rows), f"counted in {name}")
    if path.is_dir():
        with _quietly() as datasets:
            splits = datasets.load_dataset(str(path), name=subset)
        return _of_split(split, {key: len(rows) for key, rows in splits.items()}, name)
    if path.suffix in _LOADERS or name.count("/") > 1 or name.startswith((".", "/", "~")):
        return DatasetSize(None, f"{name!r} is not there")
    with _quietly() as datasets:
        try:
            infos = datasets.load_dataset_builder(name, name=subset).info.splits
        except Exception:  # whatever is missing, the answer is that it is not known
            infos = None
    if not infos:
        return DatasetSize(None, f"{name!r} is not in the cache of `datasets`")
    return _of_split(split, {key: info.num_examples for key, info in infos.items()}, name)


@contextmanager
def _quietly() -> Iterator[Any]:
    """The library `datasets`, which meanwhile waits for no network and shows no progress."""
    import datasets

    logging = datasets.utils.logging
    offline, bars, verbosity = (
        datasets.config.HF_HUB_OFFLINE,
        datasets.are_progress_bars_disabled(),
        logging.get_verbosity(),
    )
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield datasets
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


def _of_split(split: str, sizes: dict[str, int], name: str) -> DatasetSize:
    if split not in sizes:
        raise ValueError(
            f"`dataset_train_split` must be one of {', '.join(sizes)} (of {name}), received {split!r}"
            f"{did_you_mean(split, sizes)}"
        )
    return DatasetSize(sizes[split], f"counted in split {split!r} of {name}")
