"""Shared by the tests of the callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Call it for the warnings that hf_sched has logged."""
    caplog.set_level(logging.WARNING, logger="hf_sched")
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("hf_sched")]
