"""`hf-sched design` before it serves the page. tests/hf_sched/designer/test_browser.py uses the page."""

from __future__ import annotations

import sys

from tests.helpers.command_line import error_message, run
from tests.helpers.extras import require


def test_wrong_path_or_configuration_is_one_sentence(tmp_path):
    require("gradio")
    unplanned = tmp_path / "sft.yaml"
    unplanned.write_text("max_length: 512\n")
    assert "does not exist" in run("design", tmp_path / "no.yaml").output
    assert "is not a run" in error_message("design", tmp_path)
    assert "the number of optimizer steps is unknown" in error_message("design", unplanned)


def test_missing_gradio_names_the_extra(monkeypatch):
    monkeypatch.setattr(sys.modules["hf_sched.cli.design"], "find_spec", lambda name: None)
    assert "pip install 'hf_sched[ui]'" in error_message("design")
