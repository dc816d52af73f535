"""Something is done once a package is imported, and the import goes on as without it; in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEFORE = """
import sys
from importlib.machinery import ModuleSpec
from hf_sched.import_watch import when_imported

class Loader:
    def create_module(self, spec): return None
    def exec_module(self, module): pass

class Only:
    "Stands right behind the watching finder, and alone knows the package."
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, Loader()) if name == "some_package" else None

only, done = Only(), []
sys.meta_path.insert(0, only)
"""


def printed(code: str) -> str:
    ended = subprocess.run([sys.executable, "-c", BEFORE + code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize("wrapt_first", [False, True], ids=["wrapt later", "wrapt first"])
def test_it_is_done_once_and_no_other_finder_is_missed(wrapt_first: bool):
    hook = "import wrapt; wrapt.register_post_import_hook(lambda module: None, 'other_package')\n"
    then = "def then():\n    done.append('some_package' in sys.modules)\n    " + hook
    in_front = "sys.meta_path.remove(only); sys.meta_path.insert(0, only)\n"
    again = "\nimport some_package, importlib\ndel sys.modules['some_package']\nimport some_package\nprint(done)"
    watch = then + "\nwhen_imported('some_package', then)\n"
    assert printed((hook if wrapt_first else "") + in_front + watch + again) == "[False]"


def test_of_a_loaded_package_it_is_done_now():
    assert printed("import some_package\nwhen_imported('some_package', lambda: done.append(1))\nprint(done)") == "[1]"
