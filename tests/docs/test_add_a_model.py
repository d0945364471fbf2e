"""docs/add-a-model.md shows a family as it stands, and what comes out of it are llama.cpp's files."""

from __future__ import annotations

import re
from pathlib import Path

from families import assert_files_are_expected

from gguf_forge.architectures.families import granite

PAGE = Path(__file__).parents[2] / "docs" / "add-a-model.md"


def test_the_page_shows_the_file() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert Path(granite.__file__).read_text().startswith(shown)


def test_the_files_are_those_of_the_reference(tmp_path: Path) -> None:
    assert_files_are_expected(Path(__file__).with_name("granite"), tmp_path)
