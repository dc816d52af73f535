"""Calls `hf-sched` in this process."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from hf_sched.cli import app


def run(*words: object, **given: Any) -> Result:
    """The result of a command, whatever its exit status is; `given` is for `CliRunner.invoke`."""
    return CliRunner().invoke(app, [*map(str, words)], **given)


def printed(*words: object) -> str:
    """What a command prints that ends without an error."""
    result = run(*words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error_message(*words: object) -> str:
    """The message of a mistake, which `main` prints in one line."""
    error = run(*words).exception
    assert isinstance(error, ValueError | OSError), error
    return str(error)
