"""`hf-sched design` before it serves the page. tests/hf_sched/designer/test_browser.py uses the page."""

from __future__ import annotations

import sys

from click.testing import CliRunner

from hf_sched.cli import app


def test_wrong_path_or_configuration_is_one_sentence(tmp_path):
    unplanned = tmp_path / "sft.yaml"
    unplanned.write_text("max_length: 512\n")
    assert "does not exist" in CliRunner().invoke(app, ["design", str(tmp_path / "no.yaml")]).output
    for path, message in (
        (tmp_path, "is not a run"),
        (unplanned, "the number of optimizer steps is unknown"),
    ):
        error = CliRunner().invoke(app, ["design", str(path), "--no-browser"]).exception
        assert isinstance(error, ValueError) and message in str(error)


def test_missing_gradio_names_the_extra(monkeypatch):
    monkeypatch.setattr(sys.modules["hf_sched.cli.design"], "find_spec", lambda name: None)
    error = CliRunner().invoke(app, ["design"]).exception
    assert isinstance(error, ValueError) and "pip install 'hf_sched[ui]'" in str(error)
