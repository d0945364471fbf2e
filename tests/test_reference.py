"""The reference is named once, in REFERENCE.toml, and all that speaks of its versions agrees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gguf_forge.reference import reference

ROOT = Path(__file__).resolve().parents[1]


def test_it_is_read_as_toml_is_read() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    assert tomllib.loads((ROOT / "REFERENCE.toml").read_text(encoding="utf-8")) == reference()


def test_the_file_at_the_top_is_the_one_in_the_package() -> None:
    assert (ROOT / "REFERENCE.toml").samefile(ROOT / "gguf_forge" / "REFERENCE.toml")


def test_the_page_on_exactness_names_it() -> None:
    page = (ROOT / "docs" / "exactness.md").read_text(encoding="utf-8")
    named = reference()
    for fact in (named["llama_cpp"]["commit"], named["llama_cpp"]["distribution"]):
        assert fact in page
    assert f"ggml {named['ggml']['version']}" in page
    assert f"transformers {named['transformers']['version']}" in page


@pytest.mark.parametrize("file", sorted((ROOT / "gguf_forge").rglob("*.py")), ids=lambda file: file.name)
def test_sources_are_of_that_version(file: Path) -> None:
    """Docstrings name the version of transformers that a formula was read in."""
    named = re.findall(r"transformers (\d+\.\d+\.\d+)", file.read_text(encoding="utf-8"))
    assert set(named) <= {reference()["transformers"]["version"]}
