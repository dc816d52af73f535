"""Shared by all tests: no network access, one thread per process, a tiny model."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CI"] = "1"  # TRL sends telemetry otherwise
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is imported, and for child processes: tiny models are slower on many threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Trackio reads it when it is imported.
TRACKIO = TemporaryDirectory(prefix="trackio")
os.environ["TRACKIO_DIR"] = TRACKIO.name

from tests.helpers.extras import pytest_make_collect_report, pytest_runtest_makereport  # noqa: E402, F401  (hooks)
from tests.helpers.recipes import run_recipe, task  # noqa: E402, F401  (fixtures)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with subprocess trainings first, because they take longest."""
    items.sort(key=lambda item: "finetune" not in item.path.parts)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a few thousand random weights, and its tokenizer."""
    from hf_sched.finetune.demo.sorting_task import save_model

    folder = tmp_path_factory.mktemp("model")
    save_model(folder, layers=1, width=16, seed=0)
    return folder
