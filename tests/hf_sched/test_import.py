"""`import hf_sched` is quick, imports no heavy library and has every public name; tested in fresh interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_sched

ROOT = Path(__file__).parents[2]


def python(code: str, **environment: str) -> str:
    """The output of code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_neither_torch_nor_transformers():
    heavy = ("torch", "transformers", "wrapt", "matplotlib")
    # Neither an unknown name nor a whole curve needs transformers.
    code = f"""
import sys, hf_sched
hf_sched.build("cosine_restarts", num_training_steps=50).curve(peak=1.0)
try:
    hf_sched.build("cosin", num_training_steps=50)
except ValueError:
    pass
print([module for module in {heavy} if module in sys.modules])
"""
    assert python(code) == "[]"


def test_importing_it_takes_less_than_30_ms_over_numpy(tmp_path):
    # Processor time, because wall time depends on other work on the machine.
    code = "import numpy, time; t = time.process_time(); import hf_sched; print(time.process_time() - t)"
    # With compiled files, as after the first import, also if the environment disables them.
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    python(code, **compiled)
    # The least of several, because other work can only add to it.
    assert min(float(python(code, **compiled)) for _ in range(7)) < 0.030


def test_torch_is_imported_with_the_first_name_that_needs_it():
    code = "import sys, hf_sched; hf_sched.ScheduleLR; print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert python(code) == "True False"


def test_every_public_name_is_there_and_typed_and_no_other():
    assert dir(hf_sched) == sorted(hf_sched.__all__)
    assert len(set(hf_sched.__all__)) == len(hf_sched.__all__)
    for name in hf_sched.__all__:
        assert getattr(hf_sched, name) is not None, name
    assert (Path(hf_sched.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="module 'hf_sched' has no attribute 'get_schedular'"):
        hf_sched.get_schedular  # noqa: B018
