"""docs/private-names.md lists the private names of other libraries, and each occurs in one file."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "private-names.md").read_text(encoding="utf-8")
LISTED = dict(re.findall(r"^\| `(\w+)` \| `([\w./-]+)` \|", PAGE, re.MULTILINE))
SOURCES = {
    path.relative_to(ROOT / "hf_sched").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "hf_sched").rglob("*.py"))
}


def names(node: ast.AST) -> tuple[set[str], set[str]]:
    """The names that a node defines in hf_sched, and those that it may take from another library."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return {name}, set()
        case ast.Name(id=name, ctx=ast.Store()):
            return {name}, set()
        case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
            return {name}, {name}
        case ast.Attribute(attr=name):
            return set(), {name}
        case ast.Call(
            func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr"), args=[_, ast.Constant(name), *_]
        ):
            return set(), {str(name)}
        case ast.Import(names=aliases):
            return set(), {part for alias in aliases for part in alias.name.split(".")}
        case ast.ImportFrom(module=str(module), names=aliases) if not module.startswith("hf_sched"):
            return set(), {*module.split("."), *(alias.name for alias in aliases)}
    return set(), set()


def test_each_private_name_of_another_library_is_listed_and_in_one_file():
    # Set on the Trainer by hooks; a documented method of named tuples.
    own = {"_hf_sched_resumes", "_hf_sched_steps_per_epoch", "_replace"}
    used = defaultdict(set)
    for file, text in SOURCES.items():
        for defined, taken in map(names, ast.walk(ast.parse(text))):
            own |= defined
            for name in taken:
                used[name].add(file)
    private = {name for name in used if re.fullmatch(r"_[^_]\w*", name)} - (own - set(LISTED))
    assert {name: used[name] for name in private if used[name] != {LISTED.get(name)}} == {}


@pytest.mark.parametrize("name", LISTED)
def test_listed_name_occurs_in_its_file_only(name):
    word = re.compile(rf"(?<![\w]){name}(?!\w)")
    files = [file for file, text in SOURCES.items() if word.search(text)]
    assert files == [LISTED[name]]


@pytest.mark.parametrize(("column", "file"), [(1, "constraints-oldest.txt"), (2, "constraints.txt")])
def test_versions_on_the_page_are_the_tested_ones(column, file):
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))
    rows = re.findall(r"^\| (\w+) \| (\d[\w.]+) \| (\d[\w.]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    assert {row[0]: row[column] for row in rows} == {row[0]: pins[row[0]] for row in rows}
