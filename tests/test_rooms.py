"""The rooms of the package: each module has one, and imports run downward only, without circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gguf_forge"

# From the bottom to the top. A room may import the rooms of lower levels. The rooms of one level do not import one
# another. A folder without a level of its own belongs to the room that it is in.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("foreign_text", "wording"),
    ("errors", "reference"),
    ("types", "storage", "foreign", "name_pattern"),
    ("kernels",),
    ("tensors", "option"),
    ("run_settings", "file_choices"),
    ("request",),
    ("gguf_file",),
    ("engine", "recipe/importance", "general", "tokenizer"),
    ("recipe", "checkpoint"),
    ("architectures",),
    ("planning",),
    ("toolbox/inspect", "toolbox/tokens"),
    ("toolbox/verify", "toolbox/edit", "toolbox/choose", "distributed"),
    ("toolbox/report",),
    ("toolbox",),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def name_of(file: Path) -> str:
    """The dotted name of a module."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def room_of(module: str) -> str:
    """The room that a module is in: the folder or file nearest to it that has a level."""
    path = MODULES[module].relative_to(PACKAGE).with_suffix("")
    return next(place.as_posix() for place in (path, *path.parents) if place.as_posix() in LEVEL_OF)


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of the package that a module imports, at its top or in a function; not those for type checkers."""
    return frozenset(_imports(ast.parse(MODULES[module].read_text(encoding="utf-8")))) - {module}


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            inside = (f"{child.module}.{alias.name}" for alias in child.names)
            yield from (name if name in MODULES else str(child.module) for name in inside if name.startswith("gguf_"))
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name.startswith("gguf_forge"))
        else:
            yield from _imports(child)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module: str) -> None:
    room = room_of(module)
    others = {name: room_of(name) for name in imports_of(module) if name in MODULES and room_of(name) != room}
    assert [name for name, other in others.items() if LEVEL_OF[other] >= LEVEL_OF[room]] == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    order = list(TopologicalSorter({module: imports_of(module) & MODULES.keys() for module in MODULES}).static_order())
    assert len(order) == len(MODULES)


def test_only_the_binding_imports_the_compiled_module() -> None:
    assert [module for module in MODULES if "gguf_forge._kernels" in imports_of(module)] == [
        "gguf_forge.kernels.binding"
    ]


def test_a_class_has_its_name_for_itself() -> None:
    homes: dict[str, list[str]] = {}
    for module, file in MODULES.items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def documented_rooms() -> list[str]:
    """What the first column of the table of rooms names, from the top to the bottom."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("\n## The rooms\n")[2].partition("\n## ")[0]
    return [
        name for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall("`([^`]+)`", row)
    ]


def test_the_table_of_rooms_names_a_row_for_every_module() -> None:
    rooms = documented_rooms()
    assert len(set(rooms)) == len(rooms)
    files = [file.relative_to(ROOT).as_posix() for file in MODULES.values()]
    nearest = {file: max((room for room in rooms if file.startswith(room)), key=len, default=None) for file in files}
    assert [file for file, room in nearest.items() if room is None] == []
    assert set(rooms) - set(nearest.values()) == {"csrc/"}


def test_the_table_of_rooms_goes_down_the_levels() -> None:
    named = (room.removeprefix("gguf_forge/").removesuffix(".py").removesuffix("/") for room in documented_rooms())
    levels = [LEVEL_OF[room] for room in named if room in LEVEL_OF]
    assert levels == sorted(levels, reverse=True)
