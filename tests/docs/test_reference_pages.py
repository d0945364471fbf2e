"""The pages of reference are what tools/make_reference_pages.py makes."""

from __future__ import annotations

import inspect
import runpy
from functools import cached_property
from pathlib import Path
from types import FunctionType

import pytest

import gguf_forge
from gguf_forge.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "tools" / "make_reference_pages.py"))
PAGES = SCRIPT["PAGES"]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_what_the_script_makes(page: str) -> None:
    written = (ROOT / "docs" / page).read_text()
    assert written == PAGES[page](), f"docs/{page} is stale: run `python tools/make_reference_pages.py`"


def test_every_command_has_a_section() -> None:
    page = PAGES["cli.md"]()
    assert [name for name in COMMANDS if f"\n### {name}" not in page] == []


def test_every_class_that_a_public_one_names_is_described() -> None:
    page = PAGES["python.md"]()
    public = [getattr(gguf_forge, name) for name in gguf_forge.__all__]
    held = SCRIPT["held_classes"](each for each in public if each not in (gguf_forge.ForgeError,))
    assert {"GgufTensor", "TensorEntry", "Spread", "TypeShare", "Verdict", "Piece", "JobOutput", "Distance"} <= {
        each.__name__ for each in held
    }
    assert [each.__name__ for each in held if not each.__doc__ or f"### {each.__name__}\n" not in page] == []


def test_every_public_member_of_a_public_class_is_described() -> None:
    classes = [found for name in gguf_forge.__all__ if isinstance(found := getattr(gguf_forge, name), type)]
    kinds = (FunctionType, property, cached_property)
    members = [(each.__name__, name, value) for each in classes for name, value in vars(each).items()]
    shown = [(owner, name, value) for owner, name, value in members if isinstance(value, kinds) and name[0] != "_"]
    assert [(owner, name) for owner, name, value in shown if not inspect.getdoc(value)] == []


def test_what_a_script_needs_is_on_the_page() -> None:
    page = PAGES["python.md"]()
    for text in ("**more: Any", "`[name]`", "`values()`", "`exit_code`", "`path`: Where the file is"):
        assert text in page


def test_every_exported_name_is_described() -> None:
    page = PAGES["python.md"]()
    assert [name for name in gguf_forge.__all__ if f"### {name}\n" not in page and f"`{name}`" not in page] == []
