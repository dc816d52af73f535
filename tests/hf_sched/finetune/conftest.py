"""All of hf_sched.finetune needs the extra `recipes`."""

from __future__ import annotations

import pytest

from tests.helpers.extras import require


@pytest.fixture(autouse=True, scope="session")
def recipes_are_installed():
    require("trl")
