"""docs/private-names.md lists the private names of other libraries, and each occurs in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "private-names.md").read_text(encoding="utf-8")
LISTED = dict(re.findall(r"^\| `(\w+)` \| `([\w./-]+)` \|", PAGE, re.MULTILINE))
SOURCES = {
    path.relative_to(ROOT / "hf_sched").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "hf_sched").rglob("*.py"))
}


# Set on the Trainer by hooks, or documented methods.
OWN = {"_hf_sched_resumes", "_replace"}
ASSIGNED = r"\bself\.(_[a-z]\w*)(?=(?:, self\.\w+)*(?:: [^=]+)? [-+]?=)"
DEFINED = re.compile(rf"{ASSIGNED}|\b(?:def|class) (_[a-z]\w*)|^ *(_[a-z]\w*)", re.MULTILINE)
TAKEN = re.compile(r"""\.(_[a-z]\w*)|attr\([\w.]+, "(_[a-z]\w*)"|(?:import|from) (_[a-z]\w*)""")


def found(pattern: re.Pattern[str], text: str) -> set[str]:
    return {name for names in pattern.findall(text) for name in names if name}


def test_each_private_name_of_another_library_is_listed_and_in_one_file():
    own = OWN.union(*(found(DEFINED, text) for text in SOURCES.values())) - set(LISTED)
    for file, text in SOURCES.items():
        text = re.sub(r"\bhf_sched\.\S+", "", text)  # our own private modules
        assert {name for name in found(TAKEN, text) - own if LISTED.get(name) != file} == set(), file


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
