"""Declarations are short. The page about the architecture lists the long ones, with the reason."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from statistics import median

from gguf_forge.architectures import families
from gguf_forge.architectures.declaration import Architecture

PAGE = Path(__file__).resolve().parents[2] / "docs/architecture.md"
SECTION = re.compile(r"^### Long declarations\n(.*?)^#", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)\.py` \| (.+) \|$", re.MULTILINE)
MEDIAN, LONG = 60, 80


def _made_in(path: Path) -> int:
    """The number of declarations that a module makes, and not only imports."""
    module = import_module(f"{families.__name__}.{path.stem}")
    names = (
        target.id
        for node in ast.parse(path.read_text()).body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    )
    return sum(isinstance(getattr(module, name), Architecture) for name in names)


def _lines_by_file() -> dict[str, tuple[float, int]]:
    """File -> its lines for each declaration, and the number of declarations."""
    found = {}
    for folder in families.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if count := _made_in(path):
                found[path.stem] = (len(path.read_text().splitlines()) / count, count)
    return found


def _listed() -> dict[str, str]:
    section = SECTION.search(PAGE.read_text())
    assert section is not None, f"{PAGE.name} has no such section"
    return dict(ROW.findall(section[1]))


def test_half_of_the_declarations_are_short() -> None:
    files = _lines_by_file()
    assert len(files) > 100
    assert median(lines for lines, count in files.values() for _ in range(count)) < MEDIAN
    assert median(lines for lines, _ in files.values()) < MEDIAN


def test_the_page_lists_the_long_ones_and_says_why() -> None:
    long = {name for name, (lines, _) in _lines_by_file().items() if lines > LONG}
    assert set(_listed()) == long
    assert all(re.fullmatch(r"[A-Z].{40,}\.", reason) for reason in _listed().values())
