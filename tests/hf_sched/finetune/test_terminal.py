"""A run shows a header, one progress line and its figures, and nothing of other libraries unless it is verbose."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
import yaml

from hf_sched.finetune.terminal import print_summary
from tests.helpers.recipes import COMMON, ROOT, SFT

SCHEDULE = {"lr_scheduler_type": "cosine_floor", "warmup_steps": 2}


def lines_after(text: str, output: str) -> list[str]:
    return output[output.index(text) :].splitlines()


def test_header_shows_model_data_plan_and_curve_before_the_first_step(run_recipe, task):
    output = run_recipe("sft", max_steps=6, save_strategy="steps", save_steps=3, use_peft=True, **SCHEDULE).output
    header = output[: output.index("1/6 [") if "1/6 [" in output else output.index("6/6 [")]
    facts = dict(re.findall(r"^  (\w[\w ]*?)  +(.*)$", header, re.MULTILINE))
    assert facts["model"].startswith(f"{task / 'model'}: ") and " of them (" in facts["model"]
    assert facts["data"].endswith("400 samples")
    assert facts["plan"] == "6 steps (0.12 epochs) of 8 samples, 1 process on cpu"
    assert facts["learning rate"] == "cosine_floor, peak 0.002: warmup 2 | decay 4 cosine; floor 0.1"
    assert facts["output"].endswith(", a checkpoint every 3 steps")
    assert re.search(r"0\.002 ┤.*\n(.*┤.*\n)+ +└─+\n +0 +5\n", header)


@pytest.mark.parametrize(("recipe", "figure"), [("sft", "loss"), ("grpo", "reward"), ("dpo", "rewards/accuracies")])
def test_run_ends_with_three_figures_and_the_next_command(run_recipe, recipe, figure):
    run = run_recipe(recipe, max_steps=4, **SCHEDULE)
    first, *figures, following = lines_after("The model is in", run.output)
    assert first.startswith(f"The model is in {run.folder} after 0:00:")
    values = run.logged(figure)
    assert figures[0].split(maxsplit=1) == [
        figure,
        f"{values[0]:.3g} -> {values[-1]:.3g} (first and last tenth of the run)",
    ]
    assert re.fullmatch(r"  speed +[\d.e+]+ samples per second", figures[1])
    assert re.fullmatch(r"  learning rate +as planned at all 4 steps", figures[2])
    assert (len(figures), following) == (3, f"next: hf-sched report {run.folder}")


def test_figures_include_the_evaluation_and_an_adapter_is_merged_next(run_recipe, task, capsys):
    given = {"evaluate_on": str(task / "grpo"), "evaluate_metric": "exact_answer", "evaluate_max_new_tokens": 10}
    run = run_recipe("sft", max_steps=3, use_peft=True, **given, **SCHEDULE)
    *_, evaluated, _, following = lines_after("The model is in", run.output)
    assert re.fullmatch(r"  exact match +[\d.]+% -> [\d.]+% on 20 problems", evaluated)
    assert following == f"next: hf-sched merge {run.folder} --output {run.folder}_merged"
    results = json.loads((run.folder / "evaluation.json").read_text())
    graded = {model: result | {"mean": 0.25, "interval": [0.125, 0.5]} for model, result in results.items()}
    (run.folder / "evaluation.json").write_text(json.dumps(graded))
    print_summary("sft", str(run.folder), [], is_adapter=True)
    assert re.search(r"^  mean score +0\.25 -> 0\.25 on 20 problems$", capsys.readouterr().out, re.MULTILINE)


def test_interrupted_run_ends_with_one_line_that_says_how_to_continue(run_recipe, tmp_path):
    def interrupt() -> None:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "checkpoint-2" / "trainer_state.json").is_file():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt, daemon=True)
    waiting.start()
    run = run_recipe("sft", ok=False, max_steps=2000, save_strategy="steps", save_steps=2, **SCHEDULE)
    assert run.returncode == 130
    assert "Traceback" not in run.output
    assert run.output.splitlines()[-1].startswith("ERROR: interrupted; `--resume_from_checkpoint auto` continues")


@pytest.mark.slow
@pytest.mark.parametrize("verbose", [False, True])
def test_terminal_shows_nothing_of_other_libraries_unless_verbose(task, tmp_path, verbose):
    given = {**COMMON, **SFT, **SCHEDULE, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    paths = {"model_name_or_path": task / "model", "dataset_name": task / "sft", "output_dir": tmp_path / "run"}
    config = tmp_path / "sft.yaml"
    config.write_text(
        yaml.safe_dump({**given, **{name: str(path) for name, path in paths.items()}, "verbose": verbose})
    )
    status, screen = run_in_terminal(["-m", "hf_sched", "sft", "--config", str(config)])
    assert status == 0
    is_noisy = bool(re.search(r"Writing model shards|WARNING|Warning", screen))
    assert is_noisy == verbose
    if not verbose:
        assert screen.count("4/4 [") == 1


def run_in_terminal(words: list[str]) -> tuple[int, str]:
    """Run Python in a pseudo-terminal of 80 columns; return the exit status and what is left on the screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the last process has closed it
            break
    text = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", written.decode(errors="replace")).replace("\r\n", "\n")
    lines = []
    for line in text.split("\n"):
        parts = [part for part in line.split("\r") if part.strip()]
        is_cleared = line.endswith("\r") and not line.rstrip("\r").rpartition("\r")[2].strip()
        lines += [] if is_cleared else parts[-1:]
    return process.wait(), "\n".join(["", *lines, ""])
