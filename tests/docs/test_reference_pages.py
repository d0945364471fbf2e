"""The pages of reference are what tools/make_reference_pages.py makes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import gguf_forge
from gguf_forge.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = runpy.run_path(str(ROOT / "tools" / "make_reference_pages.py"))["PAGES"]


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_what_the_script_makes(page: str) -> None:
    written = (ROOT / "docs" / page).read_text()
    assert written == PAGES[page](), f"docs/{page} is stale: run `python tools/make_reference_pages.py`"


def test_every_command_has_a_section() -> None:
    page = PAGES["cli.md"]()
    assert [name for name in COMMANDS if f"\n### {name}" not in page] == []


def test_every_exported_name_is_described() -> None:
    page = PAGES["python.md"]()
    assert [name for name in gguf_forge.__all__ if f"### {name}\n" not in page and f"`{name}`" not in page] == []
