"""Progress: where a run is and when it ends, in a line that suits a terminal or a file."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from hf_sched.finetune.callbacks import progress
from hf_sched.finetune.callbacks.progress import Progress, show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(model_path: Path, folder: Path, file: io.StringIO, *callbacks: TrainerCallback, **given: Any) -> None:
    """20 steps, with progress written to a file."""
    tokens = torch.randint(6, 16, (16, 12), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": row} for row in tokens]
    requested = {"max_steps": 20, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": False, **given}
    args = TrainingArguments(
        str(folder), use_cpu=True, report_to="none", per_device_train_batch_size=4, learning_rate=1e-3, **requested
    )
    trainer = Trainer(AutoModelForCausalLM.from_pretrained(model_path), args, train_dataset=rows, eval_dataset=rows[:8])
    show_progress(trainer)
    trainer.remove_callback(Progress)
    for callback in (Progress(file), *callbacks):
        trainer.add_callback(callback)
    trainer.train()


def test_a_file_gets_a_line_for_each_tenth_of_the_run(model_path, tmp_path, capsys):
    file = io.StringIO()
    train(model_path, tmp_path, file)
    lines = file.getvalue().splitlines()
    assert [line.split(" | ")[1] for line in lines] == [f"{step}/20" for step in range(2, 21, 2)]
    assert re.fullmatch(
        r" 50% \| 10/20 \| 0:00:0\d gone, 0:00:0\d left, [\d.e-]+ s/step \| lr 0\.00055 \| loss \d\.\d+", lines[4]
    )
    assert lines[-1].startswith("100% | 20/20") and "0:00:00 left" in lines[-1]
    assert "'loss'" not in capsys.readouterr().out  # the Trainer's own line for each record


class Slow(TrainerCallback):
    """Makes steps take time."""

    def __init__(self, first: float, then: float) -> None:
        self.first, self.then = first, then

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        time.sleep(self.then if state.global_step else self.first)


def test_the_time_left_is_that_of_the_steps_behind_the_first(model_path, tmp_path):
    file = io.StringIO()
    train(model_path, tmp_path, file, Slow(first=2.0, then=0.1), max_steps=10)
    pace = [float(found) for found in re.findall(r"([\d.]+) s/step", file.getvalue())]
    assert len(pace) == 10 and pace[0] > 2.0
    assert all(0.1 <= each < 0.5 for each in pace[1:])
    left = re.findall(r"0:00:(\d\d) left", file.getvalue())
    assert int(left[0]) >= 18 and int(left[4]) <= 2


def test_a_long_tenth_gets_lines_in_between(model_path, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.12)
    file = io.StringIO()
    train(model_path, tmp_path, file, Slow(first=0.05, then=0.05), max_steps=60)
    steps = [int(found) for found in re.findall(r"(\d+)/60", file.getvalue())]
    assert len(steps) > 12 and {6, 12, 54, 60} <= set(steps)


def test_a_terminal_gets_one_line_that_is_rewritten(model_path, tmp_path):
    file = Terminal()
    train(model_path, tmp_path, file, eval_strategy="steps", eval_steps=10)
    shown = file.getvalue()
    kept = [line.split("\r")[-1] for line in shown.split("\n")]
    assert len(kept) == 4  # two evaluations, the bar as it was last, and nothing
    assert kept[0].startswith("evaluated at step 10 | eval_loss ")
    assert kept[1].startswith("evaluated at step 20 | eval_loss ")
    assert "10/20" in shown and "| evaluating 1/1" in shown
    assert "per_second" not in shown
    assert re.match(r"100%\|#+\| 20/20 \| .* \| loss \d", kept[2])


def test_disable_tqdm_silences_it(model_path, tmp_path, capsys):
    file = io.StringIO()
    train(model_path, tmp_path, file, disable_tqdm=True, eval_strategy="steps", eval_steps=10)
    assert file.getvalue() == ""
    assert "'loss'" not in capsys.readouterr().out
