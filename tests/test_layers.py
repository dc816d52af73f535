"""Imports between the layers of hf_sched point one way, function-level imports included."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_sched"
# From the bottom up. A module may import from its own layer and from those before it.
LAYERS = (
    ("_version", "_run_files"),
    ("schedules",),
    ("scheduler",),
    ("integrations", "callbacks"),
    ("plan", "reference", "plots"),
    ("check", "audit"),
    ("finetune", "designer"),
    ("cli",),
)
# Packages of one layer that must not know each other.
SEPARATE = {
    ("reference", "plan"),
    ("plots", "plan"),
    ("plots", "reference"),
    ("check", "audit"),
    ("audit", "check"),
    ("finetune", "designer"),
    ("designer", "finetune"),
}
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}


def imported_parts(path: Path, package: str = "hf_sched") -> set[str]:
    """The parts of a package that a file imports, at module level or in a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.removeprefix(f"{package}.").split(".")[0] for name in names if name.startswith(f"{package}.")}


def test_every_part_has_a_layer():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__", "__main__"} == set(RANK)


def test_imports_point_one_way():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for part in sorted(imported_parts(path) & RANK.keys()) if own in RANK else ():
            if RANK[part] > RANK[own] or (own, part) in SEPARATE:
                wrong.append(f"{path.relative_to(ROOT)} imports {part}")
    assert not wrong


def test_schedules_have_no_import_cycles():
    modules = {path.stem: path for path in (PACKAGE / "schedules").glob("[!_]*.py")}
    imports = {
        name: imported_parts(path, "hf_sched.schedules") & modules.keys() - {name} for name, path in modules.items()
    }
    while leaves := [name for name, others in imports.items() if not others & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports, "these modules import each other, in a function or at module level"


def test_recipes_use_public_names_only():
    for path in [*(ROOT / "recipes").glob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 40, path
        assert imported_parts(path) <= {"finetune"}
