"""Progress suits a terminal (one line that is rewritten) or a log file (a line now and then)."""

from __future__ import annotations

import io
import logging
import re
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from hf_sched.finetune.callbacks import progress
from tests.helpers.tiny_trainer import ModelTrainer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(model_path: Path, folder: Path, *, file: Any = None, checkpoint: Any = None, **given: Any) -> str:
    """Train 20 steps; return what was written to standard error."""
    arguments = {"max_steps": 20, "save_strategy": "no", "disable_tqdm": False, "learning_rate": 1e-3, **given}
    with redirect_stderr(file or io.StringIO()) as written:
        assert ModelTrainer(model_path, folder, **arguments).run(checkpoint) == 0
    return written.getvalue()


def test_log_file_gets_a_line_for_each_tenth_of_the_run(model_path, tmp_path, capsys):
    written = train(model_path, tmp_path, eval_strategy="steps", eval_steps=10)
    lines = [line for line in written.splitlines() if "/20 [" in line]
    assert [int(re.search(r"(\d+)/20 \[", line)[1]) for line in lines] == list(range(2, 21, 2))
    assert re.search(r"50%\|.*\| 10/20 \[00:0\d<00:0\d, .*, lr=0\.00055, loss=\d\.\d+\]$", lines[4])
    assert written.count("evaluation at step 10: loss ") == 1
    assert "per_second" not in written
    assert "'loss'" not in capsys.readouterr().out  # the Trainer's own line for each record


def test_log_file_of_a_slow_run_gets_more_lines(model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0)
    written = train(model_path, tmp_path, max_steps=60)
    assert [int(found) for found in re.findall(r"(\d+)/60 \[", written)] == list(range(1, 61))


def test_terminal_gets_one_line_that_is_rewritten(model_path, tmp_path):
    written = train(model_path, tmp_path, file=Terminal(), eval_strategy="steps", eval_steps=10)
    assert re.search(r"\r100%\|.*\| 20/20 \[.*lr=.*, loss=\d", written)
    assert written.count("evaluation at step") == 2


def test_warning_is_written_once_and_wrapped_at_words_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    handler = progress.StandardErrorHandler()
    text = "in 100% of the groups all completions got the same reward"
    with redirect_stderr(Terminal()) as written:
        for _ in range(2):
            handler.emit(logging.LogRecord("hf_sched", logging.WARNING, "", 0, text, None, None))
    assert written.getvalue().splitlines() == [
        "WARNING: in 100% of the groups all",
        "  completions got the same reward",
    ]


def test_resumed_run_starts_at_its_step(model_path, tmp_path):
    train(model_path, tmp_path, max_steps=8, save_strategy="steps")
    written = train(model_path, tmp_path, max_steps=8, checkpoint=str(tmp_path / "checkpoint-6"))
    assert [int(found) for found in re.findall(r"(\d+)/8 \[", written)] == [7, 8]


def test_disable_tqdm_silences_it(model_path, tmp_path):
    assert train(model_path, tmp_path, disable_tqdm=True, eval_strategy="steps", eval_steps=10).count("/20 [") == 0
