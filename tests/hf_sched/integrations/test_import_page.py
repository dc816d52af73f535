"""docs/import.md lists what changes in the libraries when hf_sched is imported, and nothing else."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import transformers

from tests.helpers.fresh_python import FreshPython

PAGE = (Path(__file__).parents[3] / "docs" / "import.md").read_text(encoding="utf-8")
IMPORTS = (
    "import transformers.trainer, transformers.training_args, transformers.hf_argparser, transformers.optimization\n"
    "import accelerate, trl, trl.scripts._hf_argparser"
)
CODE = """
import json, sys

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("transformers", "trl", "accelerate", "torch"):
            continue
        for key, value in list(vars(module).items()):
            found[f"{name}.{key}", "module"] = value, contents(value)
            if isinstance(value, type) and value.__module__ == name:
                found.update({(f"{name}.{key}.{one}", "class"): (inner, contents(inner))
                              for one, inner in vars(value).items()})
    return found

def contents(value):
    if type(value) not in (list, dict):
        return None
    return [id(one) for one in [*value, *(value.values() if type(value) is dict else ())]]

before, modules = attributes(), set(sys.modules)
import hf_sched
after = attributes()
changed = {name for (name, kind), (value, inside) in before.items()
           if after[name, kind][0] is not value or after[name, kind][1] != inside}
# Only in classes: lazy modules keep what is read from them.
added = {name for name, kind in after if kind == "class" and (name, kind) not in before}
print(json.dumps([sorted(changed | added), sorted({name.partition(".")[0] for name in set(sys.modules) - modules})]))
"""


def test_page_lists_the_attributes_that_an_import_changes():
    with closing(FreshPython(IMPORTS)) as fresh:
        changed, imported = json.loads(fresh(CODE))
    enum = "transformers.trainer_utils.SchedulerType"
    changed = {enum if name.startswith(f"{enum}.") else name for name in changed}
    listed = {".".join(row) for row in re.findall(r"^\| `([a-z_.]+)` \| `([\w.]+)` \|", PAGE, re.MULTILINE)}
    if transformers.__version__.startswith("4."):
        listed.add("transformers.training_args.TrainingArguments.__annotations__")
    assert changed == listed
    assert set(imported) - {"numpy"} == {"hf_sched", "wrapt"}
