"""`hf-sched cooldown`, called while a training runs, and where none does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import hf_sched
from hf_sched._run_files import COOLDOWN_REQUEST, COOLDOWN_STATUS
from hf_sched.callbacks import live_cooldown
from tests.helpers.command_line import error_message, run
from tests.helpers.live_cooldown import COOLED, WSD, RequestAfter, curve, train


@pytest.fixture(autouse=True)
def status_at_every_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_cooldown, "STATUS_INTERVAL", 0.0)


def call_while_training(model_path: Path, folder: Path, *words: str, **given: object) -> tuple[Result, list[float]]:
    """The result of the command after step 13, and the learning rates."""
    results: list[Result] = []
    send: Callable[..., None] = lambda folder, _: results.append(run("cooldown", folder, *words))  # noqa: E731
    _, used = train(model_path, folder, RequestAfter(send=send), **given)
    return results[0], used[:, 0].tolist()


def test_announced_cooldown_happens(model_path: Path, tmp_path: Path) -> None:
    result, used = call_while_training(model_path, tmp_path, "--duration", "6")
    assert result.exit_code == 0, result.output
    assert "reads requests every 5 steps, next after step 15 at the\nearliest" in result.output
    assert "over 6 steps to a learning rate of 0 and ends after step 21, not 40:\n    " + COOLED in result.output
    assert used == curve(COOLED).tolist()


def test_all_options_reach_the_run_and_json_is_complete(model_path: Path, tmp_path: Path) -> None:
    words = ["--duration", "25%", "--shape", "polynomial 2", "--floor-ratio", "0.1", "--json"]
    result, used = call_while_training(model_path, tmp_path, *words)
    text = "warmup 5 | hold 10 | decay 5 polynomial 2.0; floor 0.1"
    steps = {"step": 15, "every": 5, "steps": 5, "end": 20, "planned_end": 40}
    assert json.loads(result.stdout) == {"run": str(tmp_path), **steps, "schedule": text, "rates": [1e-3, 1e-3]}
    assert used == curve(text).tolist()
    _, used = call_while_training(model_path, tmp_path, "--duration", "6", "--min-lr", "1e-4")
    assert used == curve(f"{COOLED}; min_lr 1e-4").tolist()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--duration", "soon"], "`duration` must be steps (500)"),
        (["--shape", "1-sqr"], "did you mean '1-sqrt'?"),
        (["--floor-ratio", "2"], "`floor_ratio` must be a number from 0 to 1, received 2"),
        ([], "no run reads requests in"),
    ],
)
def test_invalid_argument_is_an_error(tmp_path: Path, words: list[str], why: str) -> None:
    assert why in error_message("cooldown", tmp_path, *words)


@pytest.mark.parametrize(
    ("words", "given", "why"),
    [
        (["--duration", "26"], {}, "`duration` must be at most the 25 steps"),
        ([], {"logging_strategy": "no"}, "it never logs: set `logging_strategy: steps`"),
        ([], {"logging_steps": 40}, "the run ends after step 40 and reads no request before"),
    ],
)
def test_impossible_request_is_an_error_and_is_not_sent(
    model_path: Path, tmp_path: Path, words: list[str], given: dict[str, object], why: str
) -> None:
    result, used = call_while_training(model_path, tmp_path, *words, **given)
    assert why in str(result.exception)
    assert len(used) == 40
    assert not list(tmp_path.glob("cooldown*"))


def test_no_signal_0_is_sent() -> None:
    """On Windows it ends the process."""
    package = Path(hf_sched.__file__).parent
    assert [path for path in package.rglob("*.py") if re.search(r"os\.kill\([^)]*\b0\)", path.read_text())] == []


def test_a_run_that_has_ended_or_was_killed_gets_no_request(model_path: Path, tmp_path: Path) -> None:
    train(model_path, tmp_path, **WSD)
    assert "has ended (last seen after step 40 of 40): resume it" in error_message("cooldown", tmp_path)
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    status = json.loads((tmp_path / COOLDOWN_STATUS).read_text()) | {"ended": False, "step": 15, "process": killed.pid}
    (tmp_path / COOLDOWN_STATUS).write_text(json.dumps(status))
    assert "was killed (last seen after step 15 of 40): resume it" in error_message("cooldown", tmp_path)
    assert not (tmp_path / COOLDOWN_REQUEST).exists()
    # The process of another host may be alive.
    (tmp_path / COOLDOWN_STATUS).write_text(json.dumps(status | {"host": "elsewhere"}))
    assert run("cooldown", tmp_path).exit_code == 0
    assert (tmp_path / COOLDOWN_REQUEST).exists()


def test_command_imports_neither_torch_nor_transformers_and_errors_are_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; from hf_sched.cli import main\n"
        f"sys.argv = ['hf-sched', 'cooldown', {str(tmp_path)!r}]\n"
        "try: main()\n"
        "finally: assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"hf-sched: no run reads requests in '{tmp_path}': it has no _live_control.json")
