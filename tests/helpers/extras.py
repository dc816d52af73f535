"""Skips tests that need a package of an extra that is not installed, and names the extra.

The hooks skip a module or a test that imports such a package. `require` is for tests that use it in another way.
"""

from __future__ import annotations

from collections.abc import Generator
from importlib.util import find_spec
from typing import TypeVar

import pytest

PACKAGES = {
    "recipes": ("datasets", "math_verify", "matplotlib", "pandas", "peft", "PIL", "scipy", "trl"),
    "sweep": ("optuna",),
    "ui": ("gradio", "plotly"),
    "deepspeed": ("deepspeed",),
    "benchmark": ("jax", "optax"),
    "test": ("kubeflow_trainer_api", "mkdocs", "playwright", "tensorboard", "trackio"),
}
MISSING = {
    package: f"needs {package}: pip install -e '.[{extra}]'"
    for extra, packages in PACKAGES.items()
    for package in packages
    if find_spec(package) is None
}
Report = TypeVar("Report", pytest.CollectReport, pytest.TestReport)


def require(package: str) -> None:
    """Skip the test, or the module, unless a package is installed."""
    if package in MISSING:
        pytest.skip(MISSING[package], allow_module_level=True)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a module that cannot be imported."""
    report = yield
    return _skipped(report, getattr(report, "call", None), str(collector.path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test that cannot import a package."""
    report = yield
    return _skipped(report, call, str(item.path))


def _skipped(report: Report, call: pytest.CallInfo | None, path: str) -> Report:
    error = call.excinfo.value if report.failed and call and call.excinfo else None
    while error is not None:
        if isinstance(error, ImportError) and (package := (error.name or "").partition(".")[0]) in MISSING:
            report.outcome, report.longrepr = "skipped", (path, 0, MISSING[package])
            break
        error = error.__cause__ or error.__context__
    return report
