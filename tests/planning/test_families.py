"""Whole conversions against llama.cpp's tools: the files of every family, pinned in tests/families.

The expected digests were made by reference/make_expected.py; none comes from this project.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from families import assert_files_are_expected
from synthetic import FAMILIES


@pytest.mark.parametrize("family", sorted(folder.name for folder in FAMILIES.iterdir()))
def test_every_file_is_the_one_of_the_reference(family: str, tmp_path: Path) -> None:
    assert_files_are_expected(FAMILIES / family, tmp_path)
