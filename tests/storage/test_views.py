"""Sources that are a part of another one, or several behind one another."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from memory import MemorySource

from gguf_forge.errors import InputError
from gguf_forge.storage.views import Concatenated, Section

DATA = bytes(range(200))


@pytest.fixture
def whole() -> Concatenated:
    cuts = (0, 10, 10, 90, 200)
    return Concatenated([MemorySource(Path(f"{start}"), DATA[start:stop]) for start, stop in itertools.pairwise(cuts)])


def test_every_range_is_that_of_the_bytes(whole: Concatenated) -> None:
    assert (whole.size, whole.path) == (200, Path("0"))
    for start in range(0, 200, 7):
        for stop in range(start, 201, 11):
            assert whole.read(start, stop - start).tobytes() == DATA[start:stop]


def test_a_section_begins_at_its_start(whole: Concatenated) -> None:
    section = Section(whole, 50, 100)
    assert section.size == 100
    assert section.read(3, 97).tobytes() == DATA[53:150]


@pytest.mark.parametrize(("offset", "nbytes"), [(-1, 1), (0, 201), (200, 1), (5, -1)])
def test_what_is_outside_is_refused(whole: Concatenated, offset: int, nbytes: int) -> None:
    for source in (whole, Section(whole, 0, 200)):
        with pytest.raises(InputError, match="outside"):
            source.read(offset, nbytes)


def test_closing_a_section_closes_nothing(whole: Concatenated) -> None:
    Section(whole, 5, 5).close()
    assert whole.read(5, 1).tobytes() == DATA[5:6]
