"""`hf-sched cooldown`, called while a training goes on, and where none does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hf_sched._run_files import COOLDOWN_REQUEST, COOLDOWN_STATUS
from hf_sched.callbacks import live_cooldown as live_control
from hf_sched.cli import app
from tests.hf_sched.callbacks.test_live_cooldown import COOLED, WSD, Tell, curve
from tests.hf_sched.callbacks.test_live_cooldown import run as train


@pytest.fixture(autouse=True)
def the_run_says_at_each_look_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_control, "SECONDS", 0.0)


def call(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["cooldown", str(folder), *words])


def while_training(model_path: Path, folder: Path, *words: str, at: int = 13, **given: object) -> tuple[Result, list]:
    """What the command printed, called after a step; the rates."""
    said: list[Result] = []
    tell: Callable[..., None] = lambda run, _: said.append(call(run, *words))  # noqa: E731
    _, used = train(model_path, folder, Tell(at, what=tell), **given)
    return said[0], used[:, 0].tolist()


def test_it_says_what_will_come_and_that_comes(model_path: Path, tmp_path: Path) -> None:
    said, used = while_training(model_path, tmp_path, "--duration", "6")
    assert said.exit_code == 0, said.output
    assert "looks after every 5 steps, next after step 15 at the earliest" in said.output
    assert "over 6 steps to a learning rate of 0, and ends after step 21, not 40:\n    " + COOLED in said.output
    assert used == curve(COOLED).tolist()


def test_all_options_reach_the_run_and_machines_can_read_the_answer(model_path: Path, tmp_path: Path) -> None:
    words = ["--duration", "25%", "--shape", "polynomial 2", "--floor-ratio", "0.1", "--json"]
    said, used = while_training(model_path, tmp_path, *words)
    answer = json.loads(said.stdout)
    text = "warmup 5 | hold 10 | decay 5 polynomial 2.0; floor 0.1"
    assert answer == {
        "run": str(tmp_path),
        "step": 15,
        "every": 5,
        "steps": 5,
        "end": 20,
        "planned_end": 40,
        "schedule": text,
        "rates": [1e-3, 1e-3],
    }
    assert used == curve(text).tolist()
    _, used = while_training(model_path, tmp_path, "--duration", "6", "--min-lr", "1e-4")
    assert used == curve(f"{COOLED}; min_lr 1e-4").tolist()


@pytest.mark.parametrize(
    ("words", "given", "why"),
    [
        (["--duration", "26"], {}, "`duration` must be at most the 25 steps"),
        (["--duration", "soon"], {}, "`duration` must be a number of steps"),
        (["--duration", "1ep"], {}, "`duration` must be a number of steps (200) or a share"),
        (["--shape", "1-sqr"], {}, "did you mean '1-sqrt'?"),
        (["--floor-ratio", "2"], {}, "`floor_ratio` must be a number from 0 to 1, received 2"),
        (["--min-lr", "-1"], {}, "`min_lr` must be a finite number, 0 or more"),
        ([], {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {}}, "'constant', is none of hf_sched"),
        ([], {"warmup_steps": 20, "lr_scheduler_kwargs": {"decay": 10}}, "at step 15 it is in a warmup"),
        ([], {"logging_strategy": "no"}, "logs nothing: `logging_strategy: steps`"),
        ([], {"logging_steps": 40}, "the run ends after step 40, and looks for no request before"),
        ([], {"live": False}, "no run listens in"),
    ],
)
def test_what_cannot_be_is_one_error_and_nothing_is_asked(
    model_path: Path, tmp_path: Path, words: list[str], given: dict[str, object], why: str
) -> None:
    said, used = while_training(model_path, tmp_path, *words, **given)
    assert isinstance(said.exception, ValueError)
    assert why in str(said.exception)
    assert len(used) == 40
    assert not list(tmp_path.glob("cooldown*"))


def test_a_run_that_has_ended_or_was_killed_is_not_asked(model_path: Path, tmp_path: Path) -> None:
    train(model_path, tmp_path, **WSD)
    assert "has ended (seen last after step 40 of 40): resume it" in str(call(tmp_path).exception)
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    status = json.loads((tmp_path / COOLDOWN_STATUS).read_text()) | {"ended": False, "step": 15, "process": killed.pid}
    (tmp_path / COOLDOWN_STATUS).write_text(json.dumps(status))
    assert "was killed (seen last after step 15 of 40): resume it" in str(call(tmp_path).exception)
    assert not (tmp_path / COOLDOWN_REQUEST).exists()
    # Of a process on another machine nobody can tell.
    (tmp_path / COOLDOWN_STATUS).write_text(json.dumps(status | {"host": "elsewhere"}))
    assert call(tmp_path).exit_code == 0
    assert (tmp_path / COOLDOWN_REQUEST).exists()


def test_neither_torch_nor_transformers_is_loaded_and_an_error_is_a_line(tmp_path: Path) -> None:
    code = (
        "import sys; from hf_sched.cli import main\n"
        f"sys.argv = ['hf-sched', 'cooldown', {str(tmp_path)!r}]\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"hf-sched: no run listens in '{tmp_path}': it has no _live_control.json")
